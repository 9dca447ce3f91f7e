"""Live labelling: frames of a source, labelled as they come and shown in a browser."""
