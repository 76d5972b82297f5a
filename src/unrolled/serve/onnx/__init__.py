"""The one-step program of a model as ONNX: the graph, its weights in 8 bits, and what runs it elsewhere."""
