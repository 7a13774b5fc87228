"""Which token may see which: a small algebra over (segment, modality, position), with one way to the fused kernel.

A mask is a rule, not a matrix: ``causal() & padding()`` is a value that can be printed and compared. A `Layout` says
what each token is. `Mask.dense` gives the matrix; `Mask.plan` gives what the attention kernel needs, which is nothing
at all where nothing is masked, the kernel's own causal path where the rule is purely causal, and the bounds of the
segments where they lie back to back and see only themselves.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int32, Int64
from torch import Tensor

TEXT, IMAGE, QUERY, AUDIO, VIDEO = range(5)
"""Values of `Layout.modality`. QUERY is a learned query (Q-Former), not a modality of the data."""

PADDING = -1
"""Value of `Layout.segment` for tokens that are not there."""


@dataclass(frozen=True)
class Runs:
    """Segments back to back in one row, without padding: segment i is bounds[i] to bounds[i + 1].

    longest   at least the length of the longest (the kernel's grid is made for it), known to the host
    """

    bounds: Int32[Tensor, " n"]
    longest: int


@dataclass(frozen=True)
class Layout:
    """What each of `length` tokens is. None stands for the plain case, which lets masks simplify without looking.

    segment   which packed record a token belongs to, PADDING for none; None: all belong to one, and none is padding
    modality  TEXT, IMAGE, ...; None: all are TEXT
    position  place in the record, by which causality is judged; None: 0, 1, 2, ...
    runs      where the segments lie, if there is one row of them back to back, their positions ascending
    reach     where each row is a tree of texts' beginnings, every token before those that continue it: where in its row
              the tokens end that continue this one
    """

    length: int
    segment: Int64[Tensor, "b s"] | None = None
    modality: Int64[Tensor, "b s"] | None = None
    position: Int64[Tensor, "b s"] | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    runs: Runs | None = None
    reach: Int64[Tensor, "b s"] | None = None

    @classmethod
    def of_lengths(cls, lengths: Int64[Tensor, " b"], length: int) -> "Layout":
        """Right-padded sequences: row i holds `lengths[i]` tokens of one segment, then padding up to `length`."""
        place = torch.arange(length, device=lengths.device)
        segment = torch.where(place < lengths[:, None], 0, PADDING)
        return cls(length, segment=segment, device=lengths.device)

    @classmethod
    def plain(cls, length: int, device: torch.device) -> "Layout":
        """`length` tokens of one segment and modality, in order, without padding."""
        return cls(length, device=device)

    def segments(self) -> Int64[Tensor, "b s"]:
        """`segment`, made explicit."""
        return self._zeros() if self.segment is None else self.segment

    def modalities(self) -> Int64[Tensor, "b s"]:
        """`modality`, made explicit."""
        return self._zeros() if self.modality is None else self.modality

    def positions(self) -> Int64[Tensor, "b s"]:
        """`position`, made explicit."""
        return torch.arange(self.length, device=self.device)[None] if self.position is None else self.position

    def _zeros(self) -> Tensor:
        return torch.zeros(1, self.length, dtype=torch.int64, device=self.device)


@dataclass(frozen=True)
class MaskPlan:
    """What the attention kernel needs of a mask. No plan (None) means that nothing is masked.

    is_causal  the kernel's own causal path, with no matrix
    allowed    True where a query may see a key, to be broadcast over heads and, where 1, over queries; rows that see
               nothing are opened (a softmax over nothing is NaN), and their outputs are zeroed by `sees`
    sees       which queries see anything at all
    runs       each query sees only its own segment, these being the segments: for a kernel of variable lengths
    sample     where a row holds several samples: which one each token belongs to, for what is drawn once a sample
    samples    how many there are
    """

    is_causal: bool = False
    allowed: Bool[Tensor, "#b 1 #q k"] | None = None
    sees: Bool[Tensor, "#b 1 #q 1"] | None = None
    runs: Runs | None = None
    sample: Int64[Tensor, "b q"] | None = None
    samples: int = 0


Rule = Callable[[Layout, Layout], Tensor]


@dataclass(frozen=True)
class Mask:
    """A rule that says of each query and key whether one may see the other. Compose with ``&`` and ``|``."""

    name: str
    rule: Rule = field(compare=False, repr=False)
    parts: "tuple[Mask, ...]" = ()

    def __and__(self, other: "Mask") -> "Mask":
        return Mask("and", lambda q, k: self.rule(q, k) & other.rule(q, k), (self, other))

    def __or__(self, other: "Mask") -> "Mask":
        return Mask("or", lambda q, k: self.rule(q, k) | other.rule(q, k), (self, other))

    def __str__(self) -> str:
        return self.name if not self.parts else f"({f' {self.name} '.join(map(str, self.parts))})"

    def dense(self, query: Layout, key: Layout | None = None) -> Bool[Tensor, "#b q k"]:
        """The whole matrix: True where the query (row) may see the key (column). Without `key`, self-attention."""
        key = query if key is None else key
        return self.rule(query, key).expand(-1, query.length, key.length)

    def plan(self, query: Layout, key: Layout | None = None) -> MaskPlan | None:
        """What the kernel needs, made once and used by all layers. Decided by structure: nothing is read back."""
        key = query if key is None else key
        needs = self._reduce(query, key)
        if needs is not None and not needs:
            return None
        if needs == {"causal"} and query.runs is None:
            return MaskPlan(is_causal=True)
        if needs is not None and "segments" in needs:
            return MaskPlan(is_causal="causal" in needs, runs=query.runs)
        allowed = self.rule(query, key)
        sees = allowed.any(-1, keepdim=True)
        return MaskPlan(allowed=(allowed | ~sees)[:, None], sees=sees[:, None])

    def _reduce(self, query: Layout, key: Layout) -> frozenset[str] | None:
        """What the rule amounts to on these layouts: any of `causal` and `segments` in a kernel's sense, both at once
        meaning their conjunction; nothing where everything is seen; None where it takes a matrix."""
        if self.parts:
            kinds = [part._reduce(query, key) for part in self.parts]
            if self.name == "or":
                if frozenset() in kinds:
                    return frozenset()
                return kinds[0] if all(k == kinds[0] for k in kinds) else None
            known = [k for k in kinds if k is not None]
            return frozenset().union(*known) if len(known) == len(kinds) else None
        runs = query is key and query.runs is not None
        if self.name == "bidirectional" or (self.name == "padding" and (key.segment is None or runs)):
            return frozenset()
        if self.name == "causal" and query is key and (query.position is None or runs):
            return frozenset({"causal"})
        if self.name == "block_diagonal" and (runs or (query.segment is None and key.segment is None)):
            return frozenset({"segments"} if runs else ())
        return None


def bidirectional() -> Mask:
    """Every token sees every token."""
    return Mask("bidirectional", lambda q, k: torch.ones(1, 1, k.length, dtype=torch.bool, device=k.device))


def causal() -> Mask:
    """A token sees those at its own position and before."""
    return Mask("causal", lambda q, k: k.positions()[:, None, :] <= q.positions()[:, :, None])


def padding() -> Mask:
    """Keys that are padding are seen by none."""
    return Mask("padding", lambda q, k: (k.segments() != PADDING)[:, None, :])


def block_diagonal() -> Mask:
    """A token sees its own segment only (packing); padding sees nothing and is not seen."""

    def rule(q: Layout, k: Layout) -> Tensor:
        mine, theirs = q.segments()[:, :, None], k.segments()[:, None, :]
        return (mine == theirs) & (mine != PADDING)

    return Mask("block_diagonal", rule)


def lineage() -> Mask:
    """A token sees itself and those that it continues, where rows are trees (`Layout.reach`)."""

    def rule(q: Layout, k: Layout) -> Tensor:
        assert k.reach is not None
        place = torch.arange(q.length, device=q.device)
        return (torch.arange(k.length, device=k.device) <= place[:, None]) & (place[:, None] < k.reach[:, None, :])

    return Mask("lineage", rule)


def keys(modality: int) -> Mask:
    """Keys of one modality are seen by all, others by none."""
    return Mask(f"keys({modality})", lambda q, k: (k.modalities() == modality)[:, None, :])


def queries(modality: int) -> Mask:
    """Queries of one modality see everything, others nothing."""
    return Mask(
        f"queries({modality})", lambda q, k: (q.modalities() == modality)[:, :, None] & bidirectional().rule(q, k)
    )


def prefix(modality: int = IMAGE) -> Mask:
    """Prefix language modelling: tokens of `modality` are seen by all, the others causally (GIT, UniLM).

    The prefix must come first by position, or it would see text through the causal half.
    """
    return causal() | keys(modality)


def media_causal() -> Mask:
    """A token sees, of its segment's media, only the last that stands at or before its own position (Flamingo, eq. 2).

    All keys of one image carry one position: that of the place in the text where the image stands. A token before the
    first image sees nothing.
    """

    def rule(q: Layout, k: Layout) -> Tensor:
        before = (k.positions()[:, None, :] <= q.positions()[:, :, None]) & (k.modalities() != TEXT)[:, None, :]
        before = before & block_diagonal().rule(q, k)
        place = k.positions()[:, None, :].expand_as(before)
        last = place.masked_fill(~before, torch.iinfo(torch.int64).min).amax(-1, keepdim=True)
        return before & (place == last)

    return Mask("media_causal", rule)


def query_isolated() -> Mask:
    """Learned queries and the other tokens do not see each other (Q-Former, contrastive pass)."""

    def rule(q: Layout, k: Layout) -> Tensor:
        return (q.modalities() == QUERY)[:, :, None] == (k.modalities() == QUERY)[:, None, :]

    return Mask("query_isolated", rule)


def query_visible() -> Mask:
    """Learned queries are seen by all and see only each other; the others are causal (Q-Former, generation pass)."""
    return keys(QUERY) | (query_isolated() & causal())
