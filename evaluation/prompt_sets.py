"""Published sets of prompts by name: what papers judge with them, and where they are to be had. None is shipped."""

from __future__ import annotations

from dataclasses import dataclass

from ..registry import Registry


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSet:
    """Prompts that others publish."""

    label: str
    prompts: int
    judged_by: str
    """What papers on caches read off it, as far as metrics here go by the same name."""
    source: str
    """Authors, year, arXiv."""
    address: str
    """Where its owners keep it."""
    licence: str
    """As its owners state it; empty where they state none."""

    def how_to_get(self) -> str:
        """One sentence for a person who named it."""
        terms = f"licence {self.licence}" if self.licence else "no licence is stated"
        return (
            f"{self.label} ({self.prompts} prompts, {self.source}; {terms}) is not shipped: write its prompts one a "
            f"line into a file from {self.address} and give that; papers judge it by {self.judged_by}"
        )


PROMPT_SETS: Registry[PromptSet] = Registry("prompt set")

PROMPT_SETS.add(
    "drawbench",
    PromptSet(
        label="DrawBench",
        prompts=200,
        judged_by="ImageReward and CLIP score, and PSNR, SSIM and LPIPS to the plain pipeline",
        source="Saharia et al., 2022, arXiv:2205.11487",
        address="https://imagen.research.google",
        licence="",
    ),
)
PROMPT_SETS.add(
    "partiprompts",
    PromptSet(
        label="PartiPrompts",
        prompts=1632,
        judged_by="CLIP score",
        source="Yu et al., 2022, arXiv:2206.10789",
        address="https://github.com/google-research/parti",
        licence="Apache-2.0",
    ),
)
PROMPT_SETS.add(
    "geneval",
    PromptSet(
        label="GenEval",
        prompts=553,
        judged_by="an object detector of its own, which outpace does not hold",
        source="Ghosh et al., 2023, arXiv:2310.11513",
        address="https://github.com/djghosh13/geneval",
        licence="MIT",
    ),
)
PROMPT_SETS.add(
    "vbench",
    PromptSet(
        label="VBench",
        prompts=946,
        judged_by="its own dimensions; subject consistency, motion smoothness and imaging quality run here",
        source="Huang et al., 2023, arXiv:2311.17982",
        address="https://github.com/Vchitect/VBench",
        licence="Apache-2.0",
    ),
)
