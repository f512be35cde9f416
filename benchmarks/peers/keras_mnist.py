"""Keras 3 with the PyTorch back end on MNIST: the settings of its example "Simple MNIST convnet" (keras.io).

Convolutions 3x3 of 32 and 64 channels with 2x2 pools, dropout 0.5, a softmax layer; Adam, batches of 128, 15 epochs, a
tenth of the training data held back for validation. The rate is constant: a run cut short loses nothing.

    python benchmarks/peers/keras_mnist.py [--epochs 15] [--until 0.995] [--seed 0] [--items N]
"""

import os

os.environ["KERAS_BACKEND"] = "torch"

import argparse
import time

import keras
import numpy as np
from common import Clock, Report, mnist
from keras import layers


class Timed(keras.callbacks.Callback):
    """The clock runs in each epoch until its validation begins; then a row with the accuracy on the test data."""

    def __init__(self, x: np.ndarray, y: np.ndarray, report: Report, until: float) -> None:
        super().__init__()
        self.x, self.y, self.report, self.until, self.clock = x, y, report, until, Clock()

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.clock.start()

    def on_test_begin(self, logs: object = None) -> None:
        self.clock.stop()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        right = self.model.predict(self.x, batch_size=512, verbose=0).argmax(1) == self.y
        self.report.row(epoch + 1, self.clock, float(right.mean()))
        self.model.stop_training = bool(right.mean() >= self.until)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--until", type=float, default=2.0, help="stop at this accuracy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--items", type=int, help="train on the first N alone, to try the program")
    given = parser.parse_args()
    keras.utils.set_random_seed(given.seed)
    began = time.perf_counter()
    x, y, test_x, test_y = mnist()
    x, test_x = x[: given.items, ..., None].astype("float32") / 255, test_x[..., None].astype("float32") / 255
    targets = keras.utils.to_categorical(y[: given.items], 10)
    report = Report("keras", "mnist", given.seed, time.perf_counter() - began)
    net = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    net.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    timed = Timed(test_x, test_y, report, given.until)
    net.fit(x, targets, batch_size=128, epochs=given.epochs, validation_split=0.1, verbose=0, callbacks=[timed])


if __name__ == "__main__":
    main()
