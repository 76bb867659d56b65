"""Feetech's serial bus servos: packets, registers, bus, calibration, and the arms that are made of them."""
