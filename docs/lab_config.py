"""Settings of JupyterLab for `make lab`.

No question about news, no dialog about building an extension. Notebooks are saved in the form in which they are
committed, as `nbdev_clean` leaves them: opening and saving one leaves git clean.
"""
import warnings

from nbdev.clean import clean_nb
from nbdev.config import get_config as nbdev_settings

NEWS = "@jupyterlab/apputils-extension:announcements"


def without_news(handler, page):
    "The settings of the served page, with the extension disabled that asks about news."
    return page | {"disabledExtensions": [*page.get("disabledExtensions", []), NEWS]}


def save_clean(model, **_):
    "Before saving: remove what `nbdev_clean` removes. Outputs stay."
    keys = nbdev_settings().allowed_cell_metadata_keys.split()
    if model["type"] == "notebook": clean_nb(model["content"], allowed_cell_metadata_keys=keys)


warnings.filterwarnings("ignore", "Overriding existing pre_save_hook")    # Jupyter reads this file twice
c = get_config()  # noqa: F821 (Jupyter defines it)
c.ServerApp.tornado_settings = {"page_config_data": {"buildCheck": False, "buildAvailable": False},
                                "page_config_hook": without_news,
                                "websocket_max_message_size": 2**30}    # bytes: an uploaded video is one message
c.FileContentsManager.pre_save_hook = save_clean
