"""One cluster that this instance owns: works off what is to be done there, and tells what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time

import structlog

from gpufleet.kube.access import connect
from gpufleet.kube.client import KubeClient
from gpufleet.kube.errors import AccessError, ApiStatusError, KubeError, Unreachable
from gpufleet.model import kinds
from gpufleet.model.log import ClusterRegistration
from gpufleet.model.placement import (
    Assignment,
    AssignmentState,
    Observation,
    ObservedPhase,
    Version,
)
from gpufleet.model.reasons import Code
from gpufleet.model.workload import workload_key
from services.dispatcher.attempt import FENCE, Bench, Contended, attend
from services.dispatcher.core import answers, render
from services.dispatcher.core.cache import Place
from services.dispatcher.core.steps import Done, Facts, observation
from services.dispatcher.core.table import ClusterTable
from services.dispatcher.hub import Clock, Hub, Meters
from services.dispatcher.settings import DispatcherSettings
from services.dispatcher.views import Views
from services.dispatcher.workqueue import WorkQueue

log = structlog.get_logger("gpufleet.dispatcher")

_SOON = 0.05
_LONGEST_QUIET = 30.0
_LONGEST_TEXT = 1000
_EXTRA_CONNECTIONS = 32


class ClusterWorker:
    """Works for one cluster until cancelled. What goes wrong here delays no other cluster."""

    def __init__(
        self,
        registration: ClusterRegistration,
        table: ClusterTable,
        hub: Hub,
        settings: DispatcherSettings,
        meters: Meters,
        clock: Clock = time.time,
    ) -> None:
        self.cluster = registration.name
        self.queue = WorkQueue()
        self.incarnation = ""
        self.bench: Bench | None = None
        self._registration = registration
        self._table = table
        self._hub = hub
        self._settings = settings
        self._meters = meters
        self._clock = clock
        self._backoff = settings.backoff()
        self._attempts: dict[str, int] = {}
        self._looks: dict[str, int] = {}
        self._received: dict[str, tuple[Version, float]] = {}
        self._said_at: dict[str, float] = {}
        self._trouble = ""
        self._fences: dict[Place, str] = {}
        self._reachable = asyncio.Event()
        self._suspect = asyncio.Event()
        self._quiet_until = 0.0  # monotonic: the server asked to be left alone until then
        self._jobs: set[asyncio.Task[None]] = set()
        self._stopping = False

    @property
    def busy(self) -> bool:
        """Whether something is worked on or ready to be."""
        return bool(self._jobs) or len(self.queue) > 0

    def attempts(self, workload: str) -> int:
        """How often the work on a workload has failed in a row."""
        return self._attempts.get(workload, 0)

    # -- what the service tells --------------------------------------------------------------------------------

    def assigned(self, workload: str, *, received: bool = True) -> None:
        """There is a new assignment, or (``received`` false) an old one is to be looked at."""
        assignment = self._table.assignments.get(workload)
        if assignment is not None and received:
            self._received[workload] = (assignment.version, time.monotonic())
            self._attempts.pop(workload, None)
        self._looks.pop(workload, None)
        self.queue.add(workload)

    def forgotten(self, workload: str) -> None:
        """An assignment is no more."""
        for table in (self._attempts, self._looks, self._received, self._said_at):
            table.pop(workload, None)
        if self.bench is not None:
            self.bench.forget(workload)

    def look_at_all(self, *, background: bool = False) -> None:
        """Everything is to be looked at."""
        for workload in sorted(self._table.assignments):
            self.queue.add(workload, background=background)

    # -- the connection ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Works until cancelled."""
        attempt = 0
        try:
            while True:
                try:
                    client = await connect(
                        self.cluster,
                        self._registration.access,
                        base_dir=self._settings.kubeconfig_dir,
                        secrets_dir=self._settings.secrets_dir,
                        pool_size=self._settings.concurrency + _EXTRA_CONNECTIONS,
                        timeout=self._settings.request_timeout,
                    )
                except AccessError as error:
                    self._cut_off(error)
                    await asyncio.sleep(self._backoff.delay(attempt, random.random))
                    attempt += 1
                    continue
                attempt = 0
                async with client:
                    try:
                        await self._serve(client)
                    except Exception:
                        log.exception("cluster.failed", cluster=self.cluster)
                        await asyncio.sleep(self._settings.backoff_base)
        finally:
            self.queue.close()

    async def stop(self) -> None:
        """Takes nothing new and waits a while for what is under way."""
        self._stopping = True
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=self._settings.stop_grace)

    async def _serve(self, client: KubeClient) -> None:
        """Works over one client until the cluster turns out to be another one, or its credentials have ended."""
        views = Views(client, self._wanted, self._noticed)
        self.bench = Bench(
            self.cluster, client, views, self._table, self._hub, self._meters, self._settings.request_timeout
        )
        tasks = [
            asyncio.create_task(self._pump(), name=f"work {self.cluster}"),
            asyncio.create_task(self._resync(), name=f"resync {self.cluster}"),
        ]
        try:
            await self._probe(client, self.bench)
        finally:
            self._reachable.clear()
            self.bench = None
            for task in (*tasks, *self._jobs):
                task.cancel()
            await asyncio.gather(*tasks, *self._jobs, return_exceptions=True)
            await views.close()

    async def _probe(self, client: KubeClient, bench: Bench) -> None:
        """Asks which cluster this is: at first, now and then, and after a request without an answer."""
        attempt = 0
        while True:
            self._suspect.clear()
            try:
                incarnation = await client.incarnation()
            except KubeError as error:
                self._reachable.clear()
                self._cut_off(error)
                await asyncio.sleep(self._backoff.delay(attempt, random.random))
                attempt += 1
                if isinstance(error, ApiStatusError) and error.unauthorized:
                    return  # the credentials may have been renewed
                continue
            attempt = 0
            if incarnation != self.incarnation:
                replaced, self.incarnation = bool(self.incarnation), incarnation
                if replaced:
                    log.warning("cluster.replaced", cluster=self.cluster, incarnation=incarnation)
                    return
            bench.incarnation = incarnation
            if not self._reachable.is_set():
                self._reachable.set()
                self._trouble = ""
                self.look_at_all()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.probe_interval):
                    await self._suspect.wait()

    def _cut_off(self, error: KubeError) -> None:
        """Says of everything that is not done yet that it has to wait."""
        text = str(error) if isinstance(error, AccessError) else f"{self.cluster} cannot be reached: {error}"
        if text != self._trouble:
            log.warning("cluster.unreachable", cluster=self.cluster, error=str(error))
            self._trouble = text
        for assignment in list(self._table.assignments.values()):
            self._wait_for(assignment, Code.CLUSTER_UNREACHABLE, text)

    async def _resync(self) -> None:
        """Looks at everything now and then, whatever the watches tell."""
        while True:
            await asyncio.sleep(self._settings.resync * (0.75 + random.random() / 2))
            self.look_at_all(background=True)

    # -- what the watches tell ---------------------------------------------------------------------------------

    def _key_of(self, kind: str, place: Place) -> str | None:
        if kind == FENCE[1] and (fenced := self._fences.get(place)) is not None:
            return fenced
        for name in kinds.key_kinds(kind):
            key = workload_key(place[0], name, place[1])
            found = key if self._table.lookup(key) is not None else self._table.objects.get(key)
            if found is not None:
                return found
        return None

    def _wanted(self, kind: str, place: Place) -> bool:
        return self._key_of(kind, place) is not None

    def _noticed(self, kind: str, place: Place) -> None:
        key = self._key_of(kind, place)
        if key is not None:
            assignment = self._table.assignments.get(key)
            leaving = assignment is None or assignment.state is AssignmentState.REMOVING
            self.queue.add_after(key, 0.0 if leaving else self._settings.coalesce)

    # -- the work ----------------------------------------------------------------------------------------------

    async def _pump(self) -> None:
        free = asyncio.Semaphore(self._settings.concurrency)
        while True:
            await free.acquire()
            await self._reachable.wait()
            workload = await self.queue.get()
            task = asyncio.create_task(self._work(workload), name=f"{self.cluster}/{workload}")
            self._jobs.add(task)

            def ended(task: asyncio.Task[None], workload: str = workload) -> None:
                self._jobs.discard(task)
                self.queue.done(workload)
                free.release()

            task.add_done_callback(ended)

    async def _work(self, workload: str) -> None:
        await asyncio.sleep(max(0.0, self._quiet_until - time.monotonic()))
        if self._stopping or not self._hub.log_id:
            return
        try:
            await self._attend(workload)
        except Contended:
            self._again(workload)
        except ApiStatusError as error:
            self._refused(workload, error)
        except (KubeError, OSError) as error:
            if isinstance(error, Unreachable):
                self._suspect.set()
            self._failed(workload, error)
        except Exception as error:
            log.exception("workload.failed", cluster=self.cluster, workload=workload)
            self._failed(workload, error)

    async def _attend(self, workload: str) -> None:
        assignment, bench = self._table.lookup(workload), self.bench
        if assignment is None or bench is None:
            return
        if assignment.job:
            self._fences[render.namespace_of(workload), render.fence_name(workload)] = workload
        result = await attend(bench, workload)
        self._attempts.pop(workload, None)
        if result is None or self._table.assignments.get(workload) is not result[0]:
            return
        done = await self._blamed(bench, *result)
        if done.retry_after is not None:
            looks = self._looks.get(workload, 0)
            self._looks[workload] = looks + 1
            self.queue.add_after(workload, min(done.retry_after, _SOON * 2 ** min(looks, 16)))
        else:
            self._looks.pop(workload, None)
        self._say(result[0], done)

    async def _blamed(self, bench: Bench, assignment: Assignment, done: Done) -> Done:
        """Asks the pods of a job that has just failed whose fault it was, as long as they are there."""
        last = self._table.last(assignment.workload)
        if not answers.asks_pods(assignment, done, last):
            return answers.blamed(assignment, done, last)
        try:
            pods = await bench.views.pods(assignment.workload)
        except KubeError as error:
            log.info("pods.unknown", cluster=self.cluster, workload=assignment.workload, error=str(error))
            return done
        return answers.blamed(assignment, done, last, pods)

    # -- what went wrong ---------------------------------------------------------------------------------------

    def _refused(self, workload: str, error: ApiStatusError) -> None:
        """The cluster's API said no: for good, or for now."""
        assignment = self._table.assignments.get(workload)
        if error.throttled or error.status == 503:
            self._quiet_until = max(self._quiet_until, time.monotonic() + min(error.retry_after or 0.0, _LONGEST_QUIET))
        if assignment is None or not answers.permanent(error):
            self._failed(workload, error)
            return
        self._meters.refused.labels(self.cluster).inc()
        log.warning("workload.refused", cluster=self.cluster, workload=workload, error=str(error))
        self._attempts.pop(workload, None)
        done = answers.refused(assignment, error)
        if done.phase is ObservedPhase.REFUSED:
            self._say(assignment, done)
            return
        self._wait_for(assignment, Code.DISPATCH_REFUSED, done.message)
        self.queue.add_after(workload, self._settings.backoff_cap)

    def _failed(self, workload: str, error: Exception) -> None:
        """It is tried again; meanwhile the assignment is pending."""
        self._meters.failures.labels(self.cluster).inc()
        log.info("workload.delayed", cluster=self.cluster, workload=workload, error=str(error) or repr(error))
        assignment = self._table.assignments.get(workload)
        if assignment is not None:
            unreachable = isinstance(error, Unreachable)
            code = Code.CLUSTER_UNREACHABLE if unreachable else Code.BACKING_OFF
            self._wait_for(assignment, code, str(error) or repr(error))
        self._again(workload, error.retry_after if isinstance(error, ApiStatusError) else None)

    def _again(self, workload: str, at_least: float | None = None) -> None:
        attempt = self._attempts.get(workload, 0)
        self._attempts[workload] = attempt + 1
        self.queue.add_after(workload, self._backoff.delay(attempt, random.random, at_least))

    # -- what is said ------------------------------------------------------------------------------------------

    def _wait_for(self, assignment: Assignment, code: Code, text: str) -> None:
        """Says that an assignment is pending, unless something definite was said of it, or just that."""
        last = self._table.last(assignment.workload)
        said = last is not None and last.version == assignment.version
        if said and last is not None and (last.phase is not ObservedPhase.PENDING or last.code == code):
            return
        self._say(assignment, Done(ObservedPhase.PENDING, code=code, message=text[:_LONGEST_TEXT]))

    def _say(self, assignment: Assignment, done: Done) -> None:
        """Publishes what became of an assignment if that is news; mere counts not too often."""
        workload = assignment.workload
        facts = Facts(self._hub.log_id, self.incarnation)
        news = observation(assignment, done, facts, self._clock())
        self._measure(news)
        if not self._table.news(news):
            return
        last, now = self._table.last(workload), time.monotonic()
        if last is not None and not _weighty(last, news):
            early = self._said_at.get(workload, 0.0) + self._settings.status_interval - now
            if early > 0:
                self.queue.add_after(workload, early)
                return
        if news.phase is ObservedPhase.REFUSED and (last is None or last.version != news.version):
            log.warning("assignment.refused", cluster=self.cluster, workload=workload, error=news.message)
        self._said_at[workload] = now
        self._hub.publish(news)

    def _measure(self, news: Observation) -> None:
        version, since = self._received.get(news.workload, (None, 0.0))
        if version == news.version and news.phase is ObservedPhase.APPLIED:
            del self._received[news.workload]
            self._meters.apply_seconds.observe(time.monotonic() - since)


def _weighty(last: Observation, news: Observation) -> bool:
    """Whether more has changed than counts and texts."""
    return (last.version, last.phase, last.health, last.failure, last.code, last.object_uid) != (
        news.version,
        news.phase,
        news.health,
        news.failure,
        news.code,
        news.object_uid,
    )
