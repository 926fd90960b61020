"""What a training run shows on the screen: no dumps before the first iteration, then log lines and a progress bar."""
import logging
import sys
from contextlib import ExitStack

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import MMLogger
from tqdm.contrib.logging import logging_redirect_tqdm

from ..utils.progress import progress_bar


def keep_dumps_off_screen(logger: MMLogger) -> None:
    """Send records of several lines (environment, config, hooks, initial weights) to the log file only.

    So are mmengine's lines about the options of single parameters, of which a recipe with layer decay has hundreds.
    `ConsoleHook` ends this when training begins.
    """
    for handler in _screens(logger):
        handler.addFilter(_is_for_the_screen)


def _screens(logger: MMLogger) -> list[logging.Handler]:
    return [handler for handler in logger.handlers
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)]


def _is_for_the_screen(record: logging.LogRecord) -> bool:
    message = record.getMessage().strip()
    return record.levelno >= logging.WARNING or bool(message) and '\n' not in message \
        and not message.startswith('paramwise_options')


class ConsoleHook(Hook):
    """Names the log file when training begins, and draws a progress bar on a terminal, below the log lines.

    The bar has iterations, time left, the loss, and the metric that chooses the best checkpoint (``save_best``): its
    last value and the best.
    """
    priority = 'LOW'  # after the loss is checked (WatchTrainingHook)

    def __init__(self):
        self.open = ExitStack()
        self.bar = None
        self.metric = ''
        self.best: float | None = None

    def before_train(self, runner) -> None:
        for handler in _screens(runner.logger):
            handler.removeFilter(_is_for_the_screen)
        runner.logger.info(f'training iterations {runner.iter + 1} to {runner.max_iters}; settings and log: '
                           f'{runner.logger.log_file}')
        keys = [getattr(hook, 'key_indicators', None) or [None] for hook in runner.hooks
                if isinstance(hook, CheckpointHook)]
        self.key = keys[0][0] if keys else None
        if is_main_process() and sys.stderr.isatty():
            self.open.enter_context(logging_redirect_tqdm([runner.logger]))
            self.bar = self.open.enter_context(progress_bar('training', runner.max_iters, 'it', initial=runner.iter))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if self.bar is None:
            return
        loss = runner.message_hub.log_scalars.get('train/loss')  # the latest that has come from the GPU
        shown = '' if loss is None else f', loss {loss.current():.3g}'
        self.bar.set_description(f'training{shown}{self.metric}', refresh=False)
        self.bar.update()

    def after_val_epoch(self, runner, metrics=None) -> None:
        key = self.key if self.key in (metrics or {}) else next(iter(metrics or {}), None)
        if key is None:
            return
        value = float(metrics[key])
        self.best = value if self.best is None else max(value, self.best)
        self.metric = f', {key.rpartition("/")[2]} {value:.3g} (best {self.best:.3g})'

    def close(self) -> None:
        """Remove the bar; after an error too."""
        self.open.close()
