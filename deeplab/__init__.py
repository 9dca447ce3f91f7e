"""DeepLabV3: the network, its recipe and its scripts."""
