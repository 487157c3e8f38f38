"""Variational model optimisation: a distribution over architectures of a Wide ResNet, trained with its weights."""
