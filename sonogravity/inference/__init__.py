"""Prediction of label maps: predictor, ensemble, engines."""
