"""The tests of the layers of caffe.layers.data, which need files."""

from tests.layers.case import Case

ELSEWHERE = dict.fromkeys(("Data", "HDF5Data", "ImageData", "WindowData"), "tests/layers/test_data.py")
ELSEWHERE["ArrayData"] = "tests/layers/test_data_more.py"
ELSEWHERE["AnnotatedData"] = "tests/layers/test_data_annotated.py"
ELSEWHERE.update(
    dict.fromkeys(("DenseImageData", "ImageLabelmapData", "ImageSegData"), "tests/layers/test_data_maps.py")
)
ELSEWHERE.update(
    dict.fromkeys(
        (
            "BoxData",
            "DetectionData",
            "EvalData",
            "ImageGtData",
            "LaneData",
            "POSE_IMAGE_DATA",
            "SegData",
            "VideoData",
            "VideoSegmentationData",
            "VideoWithVoxelTruthData",
        ),
        "tests/layers/test_data_maps.py",
    )
)
CASES: list[Case] = []
