"""``POST /images/{image_id}/sizes``: several sizes at once, and a list of them when all are made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter, HTTPException
from PIL import Image, ImageOps

from examples.shop.manager import task_manager
from examples.shop.settings import settings
from fastapi_taskflow import ManagedBackgroundTasks, previous_result, step, task_log

router = APIRouter()

WIDTHS: Final = (200, 400, 800)


@router.post("/images/{image_id}/sizes", status_code=202)
async def order_sizes(image_id: UUID, tasks: ManagedBackgroundTasks) -> dict[str, str]:
    """Have all sizes of an uploaded image made; the answer's task is the one that lists them."""
    original = settings.folder("uploads") / str(image_id)
    if not original.exists():
        raise HTTPException(404, "no such image")
    group = tasks.add_group(
        [step(make_size, original, width, tags=[f"image:{image_id}"]) for width in WIDTHS],
        callback=step(list_sizes, image_id, previous_result),
        on_failure=step(tell_missing, image_id),
    )
    return {"image_id": str(image_id), "url": f"/images/{image_id}/sizes", "task": group.group_id}


@router.get("/images/{image_id}/sizes")
async def show_sizes(image_id: UUID) -> dict[str, Any]:
    """Return the list, once all sizes are made."""
    path = _list_path(image_id)
    if not path.exists():
        raise HTTPException(404, "not all sizes are made yet")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@task_manager.task(requeue_on_interrupt=True)
def make_size(original: Path, width: int) -> dict[str, int]:
    """Make one JPEG; return its size."""
    with Image.open(original) as image:
        small = ImageOps.contain(ImageOps.exif_transpose(image).convert("RGB"), (width, width))
    draft = settings.folder("thumbnails") / f"{original.name}-{width}.part"
    small.save(draft, "JPEG")
    draft.replace(draft.with_suffix(".jpg"))
    return {"width": small.width, "height": small.height}


@task_manager.task(requeue_on_interrupt=True)
def list_sizes(image_id: UUID, sizes: list[dict[str, int]]) -> None:
    """Write down what there is."""
    path = _list_path(image_id)
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps({"sizes": sizes}))
    draft.replace(path)


@task_manager.task()
def tell_missing(image_id: UUID) -> None:
    """Tell that there will be no list for now."""
    task_log(f"not all sizes of {image_id} could be made", level="warning")


def _list_path(image_id: UUID) -> Path:
    return settings.folder("thumbnails") / f"{image_id}.json"
