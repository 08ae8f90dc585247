"""Terms whose loss a test must see, written by who knows what they are for: (file, what stands there, what is left).

The first dozen are those that nothing noticed before models were held to stored outputs.
"""

from __future__ import annotations

LOST: tuple[tuple[str, str, str], ...] = (
    ("models/hornet.py", "self.mixer(self.norm1(x_BCYX))", "self.mixer(x_BCYX)"),
    ("models/hornet.py", "self.layers(x_BCYX).mean((2, 3))", "self.layers(x_BCYX).amax((2, 3))"),
    ("models/vig.py", "* (1 - a)", "* a"),
    (
        "models/craft.py",
        "self.fusion(self.low(x_BCYX), self.high(x_BCYX))",
        "self.fusion(self.high(x_BCYX), self.low(x_BCYX))",
    ),
    ("models/dlgsanet.py", "self.temperature_H, normaliser", "torch.ones_like(self.temperature_H), normaliser"),
    ("models/gam.py", "b.sigmoid() * self.recall(h)", "self.recall(h)"),
    ("models/activator.py", "self.norm(F.gelu(self.gate(x)))", "F.gelu(self.gate(x))"),
    ("models/maxim.py", "(self.mix(self.gate_norm(v)) + 1)", "self.mix(self.gate_norm(v))"),
    ("models/mossformer.py", "x = x + self.position_scale * _positions(x.shape[2], x.shape[1], x).mT", "pass"),
    ("models/liger.py", "self.share * remembered", "remembered"),
    ("models/layers/mixers.py", "rotate(k, start),", "k,"),
    ("models/layers/mixers.py", "F.normalize(k, dim=-1),", "k,"),
)
