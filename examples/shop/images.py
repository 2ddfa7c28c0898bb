"""``POST /images``: an uploaded image gives a thumbnail, made with Pillow in a thread."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final
from uuid import UUID, uuid4

from fastapi import APIRouter, File, HTTPException, UploadFile
from fastapi.responses import FileResponse
from PIL import Image, ImageOps

from examples.shop.manager import task_manager
from examples.shop.settings import settings
from examples.shop.tracing import tracer
from fastapi_taskflow import ManagedBackgroundTasks, task_log

router = APIRouter()

MAX_BYTES: Final = 10 * 1024 * 1024
MAX_PIXELS: Final = 50_000_000
SIZE: Final = (256, 256)


class TooManyPixelsError(Exception):
    """The image would take too much memory."""


@router.post("/images", status_code=202)
async def upload_image(file: Annotated[UploadFile, File()], tasks: ManagedBackgroundTasks) -> dict[str, str]:
    """Keep the upload, and have its thumbnail made.

    The task gets the path, not the upload: the file outlives the request, and a restart.
    """
    data = await file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise HTTPException(413, f"more than {MAX_BYTES} bytes")
    image_id = uuid4()
    original = settings.folder("uploads") / str(image_id)
    original.write_bytes(data)
    task = tasks.add_task(make_thumbnail, original, image_id, size=SIZE, tags=[f"image:{image_id}"])
    return {"image_id": str(image_id), "url": f"/images/{image_id}", "task": task}


@router.get("/images/{image_id}", response_class=FileResponse)
async def show_thumbnail(image_id: UUID) -> FileResponse:
    """Return the thumbnail, once it is made."""
    path = _thumbnail_path(image_id)
    if not path.exists():
        raise HTTPException(404, "no thumbnail yet")
    return FileResponse(path, media_type="image/jpeg")


@task_manager.task(requeue_on_interrupt=True)
def make_thumbnail(original: Path, image_id: UUID, *, size: tuple[int, int]) -> None:
    """Make a small JPEG of an uploaded image."""
    with Image.open(original) as image:
        task_log(f"{image.format} of {image.width}×{image.height}")
        if image.width * image.height > MAX_PIXELS:
            msg = f"{image.width}×{image.height} is more than {MAX_PIXELS} pixels"
            raise TooManyPixelsError(msg)
        with tracer.start_as_current_span("render thumbnail", attributes={"image.width": image.width}):
            upright = ImageOps.exif_transpose(image).convert("RGB")
            upright.thumbnail(size)
        with tracer.start_as_current_span("save thumbnail"):
            path = _thumbnail_path(image_id)
            upright.save(path, "JPEG", quality=85)
    task_log(f"{path.stat().st_size} bytes", level="debug")


def _thumbnail_path(image_id: UUID) -> Path:
    return settings.folder("thumbnails") / f"{image_id}.jpg"
