"""Servos of Feetech behind a pseudo-terminal: registers, quirks and motion, at the level of packets.

What the memory table says, and what is known of the servos beside it: a goal gives torque, too; EEPROM that is written
while it is locked is lost with the power; an overload leaves the protective torque only.
"""

import os
import select
import threading
import time
import tty
from pathlib import Path

from robot_rl.hardware.feetech import packet, registers
from robot_rl.hardware.feetech.packet import Instruction

EEPROM = 40  # bytes
FASTEST = 3000.0  # ticks/s
STIFFNESS = 40.0  # 1/s: how fast a servo makes up for its distance from the goal


class SimulatedServo:
    def __init__(self, servo, encoder=2047, kept=None):
        self.encoder, self.velocity = float(encoder), 0.0
        self._kept = bytearray(EEPROM)
        factory = {
            registers.MODEL: 777, registers.ID: servo, registers.MAX_POSITION: 4095, registers.PHASE: 12,
            registers.MAX_TORQUE: 1000, registers.MAX_TEMPERATURE: 70, **(kept or {}),
        }  # fmt: skip
        for register, value in factory.items():
            self._kept[register.address : register.address + register.size] = register.encode(value)
        self.errors, self.temperature, self.voltage = 0, 30, 12.0
        self.goals = 0
        self.power_up()

    def power_up(self):
        """As after a loss of power."""
        self.memory = bytearray(self._kept) + bytearray(60)
        self.set(registers.TORQUE_LIMIT, self.get(registers.MAX_TORQUE))
        self.set(registers.LOCK, 1)
        self.velocity = 0.0

    def get(self, register):
        return register.decode(bytes(self.memory[register.address : register.address + register.size]))

    def set(self, register, value):
        self.memory[register.address : register.address + register.size] = register.encode(value)

    @property
    def id(self):
        return self.get(registers.ID)

    @property
    def torque(self):
        return self.get(registers.TORQUE_ENABLE) == 1

    @property
    def position(self):
        return (self.encoder - self.get(registers.HOMING_OFFSET)) % 4096

    def write(self, address, data):
        unlocked = self.get(registers.LOCK) == 0
        self.memory[address : address + len(data)] = data
        if unlocked and address < EEPROM:
            self._kept[address : address + len(data)] = data
        if address <= registers.GOAL_POSITION.address < address + len(data):
            self.goals += 1
            self.set(registers.TORQUE_ENABLE, 1)

    def read(self, address, size):
        self.set(registers.PRESENT_POSITION, int(self.position) % 4096)
        self.set(registers.PRESENT_VELOCITY, round(self.velocity))
        self.set(registers.PRESENT_VOLTAGE, round(10 * self.voltage))
        self.set(registers.PRESENT_TEMPERATURE, self.temperature)
        return bytes(self.memory[address : address + size])

    def advance(self, seconds):
        self.velocity = 0.0
        strength = min(self.get(registers.TORQUE_LIMIT), 1000) / 1000
        if self.torque and strength > 0:
            low, high = self.get(registers.MIN_POSITION), self.get(registers.MAX_POSITION)
            way = min(max(self.get(registers.GOAL_POSITION), low), high) - self.position
            speed = max(-FASTEST, min(FASTEST, STIFFNESS * way)) if abs(way) >= 1 else 0.0
            self.velocity = 0.0 if self.errors & 32 else speed
            self.encoder += self.velocity * seconds


class Simulator:
    """Servos on a port that is a link in a folder, so that it comes back under its name.

    Faults, as attributes: `missing` ids are silent; `corrupt` and `drop`: so many of the next answers have a wrong
    byte, or lack their last ones; `noise`: bytes before every answer.
    """

    def __init__(self, folder, servos, name="ttyACM0"):
        self.servos = list(servos)
        self.port = str(Path(folder) / name)
        self.missing, self.corrupt, self.drop, self.noise = set(), 0, 0, b""
        self.heard = []
        self._lock = threading.RLock()
        self._running = True
        self._master = self._slave = None
        self.plug_in()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._running = False
        self._thread.join()
        self.unplug()

    def __getitem__(self, servo):
        return next(item for item in self.servos if item.id == servo)

    def plug_in(self):
        with self._lock:
            self._master, self._slave = os.openpty()
            tty.setraw(self._slave)
            link = Path(self.port)
            link.unlink(missing_ok=True)
            link.symlink_to(os.ttyname(self._slave))

    def unplug(self):
        with self._lock:
            if self._master is not None:
                os.close(self._slave)
                os.close(self._master)
                Path(self.port).unlink(missing_ok=True)
                self._master = self._slave = None

    def _serve(self):
        received, before = b"", time.monotonic()
        while self._running:
            with self._lock:
                master = self._master
                ready = master is not None and select.select([master], [], [], 0)[0]
                now = time.monotonic()
                for servo in self.servos:
                    servo.advance(now - before)
                before = now
                if ready:
                    try:
                        received = self._obey(received + os.read(master, 1024))
                    except OSError:
                        received = b""
            if not ready:
                time.sleep(0.0005)

    def _obey(self, received):
        while (at := received.find(packet.HEADER)) >= 0:
            received = received[at:]
            if len(received) < 4 or len(received) < 4 + received[3]:
                return received
            whole, received = received[: 4 + received[3]], received[4 + received[3] :]
            assert packet.checksum(whole[2:-1]) == whole[-1], whole.hex(" ")
            self.heard.append(whole)
            self._do(whole[2], whole[4], whole[5:-1])
        return received

    def _do(self, who, instruction, parameters):
        there = {servo.id: servo for servo in self.servos if servo.id not in self.missing}
        if instruction == Instruction.SYNC_WRITE:
            address, size, rest = parameters[0], parameters[1], parameters[2:]
            for at in range(0, len(rest), size + 1):
                if rest[at] in there:
                    there[rest[at]].write(address, rest[at + 1 : at + 1 + size])
        elif instruction == Instruction.SYNC_READ:
            for servo in parameters[2:]:
                if servo in there:
                    self._answer(there[servo], there[servo].read(parameters[0], parameters[1]))
        elif who in there:
            servo = there[who]
            if instruction == Instruction.WRITE:
                servo.write(parameters[0], parameters[1:])
            data = servo.read(parameters[0], parameters[1]) if instruction == Instruction.READ else b""
            self._answer(servo, data, who)

    def _answer(self, servo, data, who=None):
        answer = bytearray(packet.encode(servo.id if who is None else who, servo.errors, data))
        if self.corrupt:
            self.corrupt -= 1
            answer[-2] ^= 0x10
        if self.drop:
            self.drop -= 1
            answer = answer[:-2]
        os.write(self._master, self.noise + bytes(answer))
