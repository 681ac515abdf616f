"""What is measured on a model: size, quality, speed."""
