"""Pictures with words: rows of thumbnails for retrievals, and contact sheets."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any


def picture(thumb: str, caption: str = "", css: str = "", size: int = 88) -> str:
    """One thumbnail. `thumb` is a data URI or bare base64 of a JPEG or PNG."""
    if not thumb:
        return f'<figure class="picture {css}"><span class="missing">no picture</span></figure>'
    if not thumb.startswith("data:"):
        mime = "png" if thumb.startswith("iVBOR") else "jpeg"
        thumb = f"data:image/{mime};base64,{thumb}"
    words = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    title = escape(caption, quote=True)
    image = f'<img src="{thumb}" width="{size}" alt="{title}" title="{title}">'
    return f'<figure class="picture {css}">{image}{words}</figure>'


def contact_sheet(items: Sequence[Mapping[str, Any]], size: int = 140) -> str:
    """Thumbnails ("thumb") with captions ("caption") in a grid."""
    body = "".join(picture(i.get("thumb", ""), str(i.get("caption", "")), size=size) for i in items)
    return f'<div class="sheet">{body}</div>' if items else ""


def text_to_image(rows: Sequence[Mapping[str, Any]]) -> str:
    """Queries in words, each with its own picture and the pictures that were found, the right ones framed.

    Each row: query, rank, target {thumb}, hits [{thumb, score, caption, correct}].
    """
    lines = []
    for row in rows:
        hits = "".join(
            picture(h.get("thumb", ""), _scored(h), "right" if h.get("correct") else "wrong")
            for h in row.get("hits", ())
        )
        lines.append(
            f'<div class="retrieval"><div class="query"><p>{escape(str(row.get("query", "")))}</p>'
            f'<span class="rank">rank {_rank(row.get("rank"))}</span></div>'
            f"{picture(row.get('target', {}).get('thumb', ''), 'wanted', 'target')}"
            f'<div class="hits">{hits}</div></div>'
        )
    return "".join(lines)


def image_to_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Query pictures, each with the captions that were found, the right ones marked.

    Each row: query {thumb, caption}, rank, hits [{caption, score, correct}].
    """
    lines = []
    for row in rows:
        hits = "".join(
            f'<li class="{"right" if h.get("correct") else "wrong"}">{escape(str(h.get("caption", "")))}'
            f' <span class="score">{h.get("score", 0):.2f}</span></li>'
            for h in row.get("hits", ())
        )
        query = row.get("query", {})
        lines.append(
            f'<div class="retrieval text">{picture(query.get("thumb", ""), str(query.get("caption", "")), "target")}'
            f'<div class="query"><span class="rank">rank {_rank(row.get("rank"))}</span></div><ol>{hits}</ol></div>'
        )
    return f'<div class="two">{"".join(lines)}</div>' if lines else ""


def _scored(hit: Mapping[str, Any]) -> str:
    score = hit.get("score")
    caption = str(hit.get("caption", ""))
    return f"{score:.2f} {caption}" if isinstance(score, (int, float)) else caption


def _rank(rank: Any) -> str:
    return f"{rank:,.0f}" if isinstance(rank, (int, float)) else "?"
