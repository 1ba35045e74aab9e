"""What came of the repairs of playbooks, counted. Kept by models/shard/verification.py."""

from __future__ import annotations

from hashlib import blake2b

import msgspec


class Repaired(msgspec.Struct, array_like=True):
    """What came of the repairs by one version of a playbook, in one tenant. `runs` that changed something and are over, of which
    `failed` did not succeed; after `healed` the incident was resolved, `heal_s` in all since the run began; after `quiet` its alerts
    had ended as well. `held` showed no regression while they were watched, `broke` did. `side_effects`: other incidents of the
    service that opened meanwhile."""

    tenant: str
    playbook: str
    version: str
    runs: int = 0
    failed: int = 0
    healed: int = 0
    heal_s: float = 0.0
    quiet: int = 0
    held: int = 0
    broke: int = 0
    side_effects: int = 0
    last_at: float = 0.0

    @property
    def id(self) -> bytes:
        return repaired_id(self.tenant, self.playbook, self.version)

    def plus(self, other: Repaired) -> Repaired:
        """The sum of what two shards counted."""
        return Repaired(
            self.tenant,
            self.playbook,
            self.version,
            self.runs + other.runs,
            self.failed + other.failed,
            self.healed + other.healed,
            self.heal_s + other.heal_s,
            self.quiet + other.quiet,
            self.held + other.held,
            self.broke + other.broke,
            self.side_effects + other.side_effects,
            max(self.last_at, other.last_at),
        )


def repaired_id(tenant: str, playbook: str, version: str) -> bytes:
    """What distinguishes the counts of one version of a playbook, in one tenant."""
    name = "\0".join((tenant, playbook, version))
    return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
