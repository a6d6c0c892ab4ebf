"""What the operators and sensors share."""
