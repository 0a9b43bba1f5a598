import petlesion


def test_all_that_is_offered_is_there() -> None:
    assert petlesion.__all__ == [
        "Grid",
        "Model",
        "PetlesionError",
        "PredictionSettings",
        "Segmentation",
        "SegmentationSettings",
        "SimulationSettings",
        "Study",
        "Volume",
        "__version__",
        "load_model",
        "read_study",
        "segment",
        "simulate",
    ]
    for name in petlesion.__all__:
        assert getattr(petlesion, name) is not None
    assert not hasattr(petlesion, "something_else")
    assert dir(petlesion) == petlesion.__all__
