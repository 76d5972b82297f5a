"""The engine of the server: many texts read and written at once, over any predictor."""
