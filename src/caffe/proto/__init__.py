"""Messages, their text and binary files, and the upgrade of old ones.

    caffe_pb2   the message classes, generated from caffe.proto
    text        prototxt files
    upgrade     nets and solvers of older formats
    weights     .caffemodel and HDF5 weights, mean files
    state       .solverstate files
    files       opening and writing files safely

Nothing here imports torch; h5py is imported when a HDF5 file is read or written.
"""
