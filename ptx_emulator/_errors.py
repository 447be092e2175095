"""What may be raised: by a launch, or by the first use."""


class EmulatorError(Exception):
    """A kernel did something wrong: a trap, or one of the subclasses."""


class MemoryFault(EmulatorError):
    """An access outside of the memory given, misaligned, or of bytes that nobody wrote."""


class Race(EmulatorError):
    """Two accesses that nothing orders."""


class Deadlock(EmulatorError):
    """No warp can go on, or those that can will never change anything."""


class LimitError(EmulatorError):
    """The launch needs more than the machine has."""


class Unsupported(EmulatorError):
    """The module uses what is not modelled."""


class BuildError(RuntimeError):
    """The emulator itself could not be compiled."""


# By Fault::Kind of csrc/error.h.
BY_KIND = {0: MemoryFault, 1: Race, 2: Deadlock, 3: LimitError, 4: Unsupported, 5: EmulatorError}
