"""The heads of dual encoders, probes and plain classifiers: one product with a matrix of classes."""

from __future__ import annotations

from torch import Tensor, nn


class ClassScores(nn.Module):
    """Image vector and the bank -> logits, where they do not split over patches.

    Parameters
    ----------
    scale : Tensor or None
        Scalar that the product is multiplied with.
    bias : Tensor or None
        Scalar that is added for every class. A bias for each class is a tensor of the bank: a third argument.
    """

    scale: Tensor | None
    bias: Tensor | None

    def __init__(self, scale: Tensor | None = None, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)

    def forward(
        self, image_vector: Tensor, class_vectors: Tensor, class_bias: Tensor | None = None
    ) -> tuple[Tensor]:
        """Score.

        Parameters
        ----------
        image_vector : Tensor, (B, D)
        class_vectors : Tensor, (N, D)
        class_bias : Tensor, (N,), optional

        Returns
        -------
        logits : Tensor, (B, N)
        """
        scaled = image_vector if self.scale is None else self.scale * image_vector
        logits = scaled @ class_vectors.T
        if class_bias is not None:
            logits = logits + class_bias
        return (logits if self.bias is None else logits + self.bias,)


class ClassMatrix(nn.Module):
    """Image vector, patch vectors and the bank -> logits and maps.

    Parameters
    ----------
    grid : (int, int)
        Rows and columns of the patches.
    scale, bias : Tensor or None
        See :class:`ClassScores`.
    """

    def __init__(
        self, grid: tuple[int, int], scale: Tensor | None = None, bias: Tensor | None = None
    ) -> None:
        super().__init__()
        self.scores = ClassScores(scale, bias)
        self.grid = grid

    def forward(
        self,
        image_vector: Tensor,
        patch_vectors: Tensor,
        class_vectors: Tensor,
        class_bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Score.

        Parameters
        ----------
        image_vector : Tensor, (B, D)
        patch_vectors : Tensor, (B, rows * columns, D)
        class_vectors : Tensor, (N, D)
        class_bias : Tensor, (N,), optional

        Returns
        -------
        logits : Tensor, (B, N)
        maps : Tensor, (B, N, rows, columns)
            Each patch's product with each class, without scale and biases.
        """
        (logits,) = self.scores(image_vector, class_vectors, class_bias)
        return logits, (patch_vectors @ class_vectors.T).transpose(1, 2).unflatten(-1, self.grid)
