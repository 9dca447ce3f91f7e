"""Live labelling: a stream of frames, labelled and shown in a browser."""
