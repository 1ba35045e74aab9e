"""A classifier that learns from what people made of incidents: features, model, training and evaluation. Arrays in, arrays out."""
