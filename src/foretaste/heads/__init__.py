"""The exact head: L2-regularised softmax regression solved to its optimum, with its curvature."""
