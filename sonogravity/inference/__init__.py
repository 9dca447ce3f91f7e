"""A frame in, a label map out: predictor, ensemble, engines."""
