"""ResNet-18 for small images, at any width, with torchvision's state-dict keys.

Written out rather than built from torchvision's block: importing torchvision takes 5 s, every audit would pay it.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from foretaste.errors import EncoderError


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al. 2016, figure 2).

    Args:
        inputs, outputs: channels.
        stride: of the first convolution; the shortcut is a 1x1 projection where shapes differ.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Float [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return functional.relu(self.bn2(self.conv2(y)) + self.downsample(x), inplace=True)


class ResNetSmall(nn.Module):
    """ResNet-18 with the stem of SimCLR's CIFAR experiments (Chen et al. 2020, appendix B.9).

    The stem is a 3x3 convolution of stride 1 without max-pool, so an image of 8 pixels still has a feature map at the
    end. Keys are those of torchvision's `resnet18` without `fc`.

    Args:
        width: channels of the first stage, at least 1 (torchvision: 64); stage i has 2**i times as many.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        if width < 1:
            raise EncoderError("width: at least 1 channel", got=str(width), do="the usual widths are 8, 16, 32 and 64")
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = nn.Sequential(BasicBlock(width, width, 1), BasicBlock(width, width, 1))
        self.layer2 = nn.Sequential(BasicBlock(width, 2 * width, 2), BasicBlock(2 * width, 2 * width, 1))
        self.layer3 = nn.Sequential(BasicBlock(2 * width, 4 * width, 2), BasicBlock(4 * width, 4 * width, 1))
        self.layer4 = nn.Sequential(BasicBlock(4 * width, 8 * width, 2), BasicBlock(8 * width, 8 * width, 1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images, float [N, 3, H, W] with sides from 8 to about 224, to features [N, 8 * width]."""
        x: Tensor = functional.relu(self.bn1(self.conv1(images)), inplace=True)  # [N, width, H, W]
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # [N, 8 * width, H / 8, W / 8]
        return x.mean((2, 3))


def resnet18_small(width: int = 64) -> ResNetSmall:
    """A fresh network; its first weights come from torch's global stream, so fork that for a fixed start.

    Raises:
        EncoderError: the width is below 1.
    """
    return ResNetSmall(width)
