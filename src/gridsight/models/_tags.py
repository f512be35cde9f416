"""What the tags of several networks say in the same words."""


def on_imagenet(top1: float, where: str = "torchvision V1 weights") -> str:
    """The published accuracy in words, by default of torchvision's first weights.

    >>> on_imagenet(69.758)
    '69.76 % top-1 on ImageNet, torchvision V1 weights'
    """
    return f"{top1:.2f} % top-1 on ImageNet, {where}"
