"""mmengine's Runner with what dense training needs on any machine: checks first, CPUs and gloo, safe checkpoints."""
import json
import logging
import signal
from functools import partial
from pathlib import Path

import cv2
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_distributed, is_main_process
from mmengine.logging import print_log
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner, ValLoop

from ..config import DATALOADERS
from ..config.data_files import check_files
from ..config.model_checks import check_channels, check_operators, check_sharding, check_weights
from ..config.preflight import (
    annotation_files,
    check_built_dataset,
    check_config,
    check_launcher,
    check_numbers,
    explain_empty,
)
from ..errors import UserError
from ..mm.device import allow_tf32
from ..mm.environment import launched_processes
from ..optim.amp import for_this_machine
from ..optim.saved_state import check_saved_state
from ..optim.sharding import ShardedState, fetch_all
from .checkpoint_writer import CheckpointWriter, run_checkpoint, validated_checkpoint
from .console import ConsoleHook, keep_dumps_off_screen
from .hooks import LateRuntimeInfoHook
from .interrupt import InterruptHook
from .loops import resumable, resumed_meta
from .ranks import watch_ranks
from .samples import BatchPlan, SeededItems, StepBatchSampler
from .shared_memory import check_shared_memory
from .validation import BackgroundValLoop, MetricsHook
from .work_dir import latest_good_checkpoint, make_work_dir

AMP = {'fp16': 'float16', 'bf16': 'bfloat16'}


class DenseRunner(Runner):
    """mmengine's Runner, with these differences.

    - ``env_cfg.tf32`` says whether float32 products and convolutions may round their inputs to TF32 on a GPU.
    - Several CPU processes train with gloo, and SyncBN becomes BN there (torch's SyncBN needs a GPU).
    - A data set that is empty or lacks a class, and a layer whose operator is missing, are errors before training.
    - Checkpoints are written while training goes on, and appear under their names when they are complete.
    - ``shard_optimizer=True`` divides the optimizer's state among the processes (`ShardedState`).
    - Training goes on while the metrics of a validation are computed (`BackgroundValLoop`).
    - A run resumes as if it had never stopped, on another number of processes too (`loops`, `samples`).
    - The screen shows what a user reads (`ConsoleHook`), and the first Ctrl-C saves a checkpoint (`InterruptHook`).
    - Evaluation of a two-stage detector ends NMS with the last box that is kept (`detection.nms`).
    - Evaluation of `FastEncoderDecoder` makes label maps without full-size scores; test-time augmentation needs those.
    """

    _plan: BatchPlan | None = None  # of training, with a loop that resumes exactly
    shards: ShardedState | None = None  # of the optimizer's state, with ``shard_optimizer``

    def build_logger(self, *args, **kwargs):
        logger = super().build_logger(*args, **kwargs)
        if self._train_dataloader is not None:
            keep_dumps_off_screen(logger)
        return logger

    def train(self):
        hooks = [ConsoleHook(), InterruptHook()]
        self.checkpoints = CheckpointWriter()
        for hook in (*hooks, MetricsHook()):
            self.register_hook(hook)
        try:
            model = super().train()
            self.checkpoints.wait()
            return model
        finally:
            if isinstance(self._val_loop, BackgroundValLoop):
                self._val_loop.close()
            self.checkpoints.join()
            for hook in hooks:
                hook.close()

    def build_model(self, model):
        built = super().build_model(model)
        check_operators(built)
        if hasattr(built, 'labels_only'):
            built.labels_only = True
        if hasattr(built, 'roi_head'):
            from ..detection.nms import stop_nms_early  # needs mmdet
            stop_nms_early(built)
        return built

    def setup_env(self, env_cfg: dict) -> None:
        if self.distributed and not is_distributed() and get_device() == 'cpu' and self._launcher == 'pytorch':
            torch.distributed.init_process_group('gloo')
        super().setup_env(env_cfg)
        if get_device() == 'cuda' and env_cfg.get('tf32') is not None:
            allow_tf32(env_cfg['tf32'])
        watch_ranks('; continue with the same command and --resume' if self._train_dataloader is not None else '')

    def wrap_model(self, model_wrapper_cfg, model):
        if any(hook.get('type') == 'ChannelsLastHook' for hook in self.cfg.get('custom_hooks') or ()):
            model = model.to(memory_format=torch.channels_last)
        if not self.distributed or get_device() != 'cpu' or model_wrapper_cfg is not None:
            return super().wrap_model(model_wrapper_cfg, model)
        self.logger.info('CPU processes: SyncBN layers become BN, gradients are averaged through gloo')
        return MMDistributedDataParallel(revert_sync_batchnorm(model), broadcast_buffers=False,
                                         find_unused_parameters=self.cfg.get('find_unused_parameters', False))

    def build_optim_wrapper(self, optim_wrapper):
        if isinstance(optim_wrapper, dict) and self._plan and self._plan.passes > 1:
            steps = self._plan.passes * optim_wrapper.get('accumulative_counts', 1)
            optim_wrapper = {**optim_wrapper, 'accumulative_counts': steps}
        built = super().build_optim_wrapper(for_this_machine(optim_wrapper))
        if isinstance(optim_wrapper, dict) and isinstance(built, OptimWrapper):
            built.optimizer.register_load_state_dict_pre_hook(check_saved_state)
            if self.cfg.get('shard_optimizer'):
                self.shards = ShardedState(built.optimizer)
                self.logger.info(f'the state of {type(built.optimizer).__name__} is divided among {self.world_size} '
                                 f'processes: {self.shards.describe()}')
        return built

    def resume(self, filename, resume_optimizer=True, resume_param_scheduler=True, map_location='cpu') -> None:
        """As mmengine's; the file is read into CPU memory, since a GPU has no room for it beside model and state."""
        super().resume(filename, resume_optimizer, resume_param_scheduler, map_location)

    def register_default_hooks(self, hooks=None) -> None:
        checkpoint = (hooks or {}).get('checkpoint')
        if checkpoint and checkpoint.get('type') == 'CheckpointHook':  # a stock config's
            hooks = {**hooks, 'checkpoint': {**checkpoint, 'type': 'SafeCheckpointHook'}}
        info = (hooks or {}).get('runtime_info', dict(type='RuntimeInfoHook'))
        if info and info.get('type') == 'RuntimeInfoHook':
            hooks = {**(hooks or {}), 'runtime_info': {**info, 'type': 'LateRuntimeInfoHook'}}
        super().register_default_hooks(hooks)

    @staticmethod
    def build_dataloader(dataloader, seed=None, diff_rank_seed=False):
        if isinstance(dataloader, dict) and dataloader.get('num_workers', 0) == 0:
            # torch refuses these two without workers; a recipe run with num_workers=0 should simply run
            dataloader = {**dataloader, 'persistent_workers': False}
            dataloader.pop('prefetch_factor', None)
        if isinstance(dataloader, dict) and torch.cuda.is_available():
            dataloader = {'pin_memory': True, **dataloader}  # by a thread, ahead of the step that takes the batch
        try:
            built = Runner.build_dataloader(dataloader, seed=seed, diff_rank_seed=diff_rank_seed)
        except json.JSONDecodeError as error:
            raise UserError(f'{annotation_files(dataloader)} could not be read as JSON ({error}): it is damaged or cut '
                            'off; download or write it again') from error
        except ValueError as error:
            if 'need at least one array' not in str(error):  # mmengine raises this for an empty data set
                raise
            raise explain_empty(dataloader) from error
        check_built_dataset(built.dataset)
        check_files(built.dataset)
        check_shared_memory(built)
        built.worker_init_fn = partial(start_worker, built.worker_init_fn)
        if isinstance(built.batch_sampler, StepBatchSampler):
            built.dataset.__getitems__ = SeededItems(built.dataset)
        return built

    def build_train_loop(self, loop):
        """As mmengine's; its own two loops become those that resume exactly (`loops`)."""
        if isinstance(loop, dict) and isinstance(self._train_dataloader, dict):
            seed = self.seed - (self.rank if self._randomness_cfg.get('diff_rank_seed') else 0)
            loop, self._train_dataloader, self._plan = resumable(
                loop, self._train_dataloader, resumed_meta(self), seed, self.rank, self.world_size)
        return super().build_train_loop(loop)

    def build_val_loop(self, loop):
        if isinstance(loop, dict) and loop.get('type', ValLoop) in ('ValLoop', ValLoop):
            loop = {**loop, 'type': BackgroundValLoop}
        return super().build_val_loop(loop)

    def finish_validation(self) -> None:
        """Wait for metrics that are being computed, on all ranks at the same iteration.

        Nothing where hooks are called with them just now, which rank 0 may do alone.
        """
        if isinstance(self._val_loop, BackgroundValLoop) and not self._val_loop.landing:
            self._val_loop.finish()

    def scale_lr(self, optim_wrapper, auto_scale_lr=None) -> None:
        if auto_scale_lr and auto_scale_lr.get('enable'):
            base = auto_scale_lr['base_batch_size']
            batch = self._train_dataloader['batch_size'] if isinstance(self._train_dataloader, dict) \
                else self._train_dataloader.batch_size
            steps = getattr(optim_wrapper, '_accumulative_counts', 1)
            self.logger.info(f'learning rate scaling: {self.world_size} process(es) x {batch} image(s) x {steps} '
                             f'accumulation step(s) = {self.world_size * batch * steps} images a step; the recipe is '
                             f'for {base}, so every learning rate is multiplied by '
                             f'{self.world_size * batch * steps / base:g}')
            # mmengine leaves accumulation out of the global batch
            auto_scale_lr = {**auto_scale_lr, 'base_batch_size': base / steps}
        super().scale_lr(optim_wrapper, auto_scale_lr)

    def save_checkpoint(self, out_dir, filename, file_client_args=None, save_optimizer=True, save_param_scheduler=True,
                        meta=None, by_epoch=True, backend_args=None) -> None:
        """As mmengine's, while training goes on; ``checkpoints`` knows when the file is complete.

        Every process calls this; rank 0 writes.
        """
        meta = {'epoch': self.epoch + by_epoch, 'iter': self.iter + (not by_epoch), **(meta or {})}
        if isinstance(self._val_loop, BackgroundValLoop) and self._val_loop.landing:
            if is_main_process():
                again = validated_checkpoint(self.checkpoints.last, self.message_hub.state_dict(), meta, save_optimizer,
                                             save_param_scheduler)
                self.checkpoints.write_again(again, Path(out_dir) / filename)
            return
        self.finish_validation()
        if not is_main_process():
            if save_optimizer and self.shards:
                fetch_all(self.shards.complete(self.optim_wrapper.state_dict())['state'])
            return
        for hook in self.hooks:
            if isinstance(hook, LateRuntimeInfoHook):
                hook.record(self)  # the checkpoint has what was logged
        self.checkpoints.write(run_checkpoint(self, meta, save_optimizer, save_param_scheduler),
                               Path(out_dir) / filename)


def start_worker(then, worker: int) -> None:
    """Have a data loader's worker use one core, then start it as mmengine does.

    Workers already run side by side, one a core. OpenCV otherwise starts a thread for every core of the machine in each
    of them: 8 workers on 32 cores are 256 threads, which wait for one another. mmengine turns that off in the process
    that trains, which workers inherit only where they are forked. torch limits its own threads in workers to one.
    """
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to workers too; the main process decides
    if then is not None:
        then(worker)


def prepare_training(cfg: Config, *, resume: str | bool = False, amp: str | None = None, auto_scale_lr: bool = False,
                     launcher: str = 'none', shard: bool = False) -> Config:
    """Apply the train tool's flags, check the config, and return it.

    Args:
        resume: True continues the newest good checkpoint of the work dir, a path continues that file.
        amp: 'fp16' or 'bf16' mixed precision, 'off' for float32, None for what the recipe says.
        auto_scale_lr: scale the learning rate by the batch size over the recipe's.
        launcher: 'none', 'pytorch' (torchrun), 'slurm' or 'mpi'.
        shard: divide the optimizer's state among the processes.

    Raises:
        UserError: a data file, class count or flag that cannot work; found before anything is built.
    """
    check_launcher(launcher)
    cfg.launcher = launcher
    if amp is not None:
        set_amp(cfg, amp)
    if auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise UserError(f'--auto-scale-lr: {cfg.filename} has no auto_scale_lr.base_batch_size '
                            '(the global batch its learning rate is for); add it')
        cfg.auto_scale_lr.enable = True
    if shard:
        cfg.shard_optimizer = True
    if cfg.get('shard_optimizer'):
        check_sharding(cfg, launched_processes(launcher))
    if resume or cfg.get('resume'):
        set_resume(cfg, resume)
    check_numbers(cfg)
    check_channels(cfg)
    check_weights(cfg)
    check_config(cfg, DATALOADERS[:2])
    return cfg


def prepare_testing(cfg: Config, checkpoint: str, launcher: str = 'none') -> Config:
    """Reduce the config to what evaluation needs, check it, and return it.

    Raises:
        UserError: the checkpoint or a data file is missing, or a class count does not fit.
    """
    check_launcher(launcher)
    cfg.launcher = launcher
    cfg.resume = False
    cfg.load_from = checkpoint
    for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'val_dataloader', 'val_cfg',
                'val_evaluator', 'auto_scale_lr'):
        cfg.pop(key, None)
    cfg.model.pop('init_cfg', None)
    cfg.model.backbone.pop('init_cfg', None)  # the checkpoint provides all weights
    cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks') or [] if hook.get('type') == 'EMAHook']
    check_numbers(cfg)
    check_channels(cfg)
    check_config(cfg, DATALOADERS[2:])
    make_work_dir(cfg.work_dir)
    return cfg


def set_resume(cfg: Config, checkpoint: str | bool = True) -> None:
    """Continue ``checkpoint``, or with True the newest good one of the work dir, if there is one; in place.

    Raises:
        UserError: the named checkpoint does not exist.
    """
    if isinstance(checkpoint, str):
        cfg.resume, cfg.load_from = True, existing_file(checkpoint, '--resume')
        return
    latest = latest_good_checkpoint(cfg.work_dir)
    if latest is None:
        cfg.resume = False
        print_log(f'--resume: {cfg.work_dir} has no checkpoint that can be continued; training starts from the '
                  'beginning', logger='current', level=logging.WARNING)
    else:
        cfg.resume, cfg.load_from = 'auto', str(latest)  # 'auto': the run of the work dir is continued


def set_amp(cfg: Config, amp: str) -> None:
    """Train in 'fp16', 'bf16' or, with 'off', float32, in place.

    Raises:
        UserError: fp16 without a GPU.
    """
    if amp == 'fp16' and get_device() == 'cpu':
        raise UserError('--amp fp16 was asked for, but there is no GPU and CPUs have no fast fp16: use --amp bf16')
    wrapper = cfg.optim_wrapper
    if amp == 'off':
        wrapper.type = 'OptimWrapper'
        wrapper.pop('dtype', None)
        wrapper.pop('loss_scale', None)
    else:
        wrapper.type = 'AmpOptimWrapper'
        wrapper.dtype = AMP[amp]


def existing_file(path: str, what: str) -> str:
    """``path`` itself; raises UserError when there is no such file."""
    if not Path(path).is_file():
        raise UserError(f'{what} {path}: no such file')
    return path
