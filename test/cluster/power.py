"""Machines that lose power: what an instance's log was given in the last moments never came to the disk."""


class Power:
    """Remembers how far the log of an instance was, and cuts off what came later."""

    def __init__(self, instance):
        self.instance = instance
        # The instance goes by the id of the machine's start, which is another one after this.
        instance.eval("box.space._pico_marks:delete('machine')")
        self.sizes = {path.name: path.stat().st_size for path in self._files()}

    def _files(self):
        return sorted((self.instance.folder / "data").glob("*.xlog"))

    def lose(self):
        """Once the process has ended. Answers how many bytes are lost."""
        lost = 0
        for path in self._files():
            kept = self.sizes.get(path.name, 0)
            lost += path.stat().st_size - kept
            if kept == 0:
                path.unlink()
            else:
                with open(path, "r+b") as file:
                    file.truncate(kept)
        return lost
