"""k-space back to images: adjoint, conjugate gradients, metrics."""
