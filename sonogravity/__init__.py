"""What all models of SonoGravity share: labels, metrics, data, training, scoring, worksheets."""
