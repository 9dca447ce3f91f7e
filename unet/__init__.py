"""U-Net: the network, its recipe and its scripts."""
