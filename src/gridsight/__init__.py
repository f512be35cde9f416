"""Gridsight: train, explain and ship convolutional networks for signals, images and volumes."""
