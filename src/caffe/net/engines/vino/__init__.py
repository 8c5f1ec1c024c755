"""What the engine "openvino" needs of OpenVINO, an optional package: imported when a net runs on it."""
