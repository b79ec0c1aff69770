"""Images that cannot be decoded are found before the task that needs them begins: the run stops, or leaves them out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from mist_ext.data.decode import BrokenImage
from mist_ext.data.inspection import unreadable
from mist_ext.data.stream import Stream
from mist_ext.data.task_images import TaskImages
from mist_ext.distributed import agreement, ranks
from mist_ext.runs.context import RunContext
from mist_ext.system.names import printable, say
from mist_ext.system.progress import Progress


class ImageCheck:
    """Decodes every image once, when the first task that needs it begins.

    Parameters
    ----------
    context : RunContext
    out : Path
        The run's folder, which messages name.
    """

    def __init__(self, context: RunContext, out: Path) -> None:
        self.context = context
        self.out = out
        self._problems: dict[str, dict[int, str]] = {}  # by part and row: why it cannot be decoded, empty if it can

    def check(self, stream: Stream, tasks: int, progress: Progress, save: Callable[[], None]) -> None:
        """Check the images of the first tasks of a stream; leave out what is broken if the options say so.

        Raises
        ------
        BrokenImage
            On every rank, if images cannot be decoded, once ``save`` has saved the run's state; or if a class has no
            image left.
        """
        for task in stream.tasks[:tasks]:
            for part, images in (("training", task.train), ("test", task.test)):
                broken = self._broken(part, images, progress)
                if not broken:
                    continue
                names = "\n".join(printable(reason) for reason in broken.values())
                found = f"{len(broken)} {part} images of task {task.number + 1}"
                if not self.context.options.skip_broken:
                    save()
                    message = (
                        f"{found} cannot be decoded:\n{names}\n"
                        f"Go on with mist run --resume {self.out} once they are replaced, or with --skip-broken"
                    )
                    raise agreement.on_every_rank(BrokenImage(message))
                say(self.context.console, f"{found} are left out:\n{names}")
                images.leave_out(list(broken))
                self._require_every_class(part, images, stream)

    def _broken(self, part: str, images: TaskImages, progress: Progress) -> dict[int, str]:
        """Return why images cannot be decoded, by their position among a task's; the ranks share the work."""
        rows = images.indices.tolist()
        known = self._problems.setdefault(part, {})
        new = [row for row in rows if row not in known]
        track = partial(progress.track, phase=f"check {part} images", total=len(new))
        found = agreement.joined(dict(unreadable(images.views.images, new[ranks.rank() :: ranks.size()], track)))
        known |= dict.fromkeys(new, "") | found
        return {item: known[row] for item, row in enumerate(rows) if known[row]}

    def _require_every_class(self, part: str, images: TaskImages, stream: Stream) -> None:
        for position in images.classes:
            if not (images.labels == position).any():
                name = self.context.source.class_names[stream.class_order[position]]
                message = f"class {name!r} has no {part} image left that can be decoded; replace some"
                raise agreement.on_every_rank(BrokenImage(message))
