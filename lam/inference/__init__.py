"""Using a trained model: it encodes, decodes, steps and imagines, its codes have names, and it can be taken along."""
