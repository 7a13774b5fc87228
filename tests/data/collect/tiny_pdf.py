"""PDF files written by hand, a few objects each: pages with words, pictures of grey, and captions."""

from collections.abc import Sequence


def pdf(
    pages: Sequence[str],
    size: tuple[float, float] = (300, 400),
    pixels: tuple[int, int] = (8, 8),
    extra: str = "",
    trailer: str = "",
) -> bytes:
    """A PDF whose pages have these contents; /P draws a picture of so many pixels, /F is Helvetica."""
    wide, high = pixels
    grey = bytes(i % 256 for i in range(min(wide * high, 4096)))
    count = len(pages)
    kids = " ".join(f"{5 + 2 * i} 0 R" for i in range(count))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {count} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        f"<< /Type /XObject /Subtype /Image /Width {wide} /Height {high} /ColorSpace /DeviceGray /BitsPerComponent 8 "
        f"/Length {len(grey)} >>\nstream\n".encode()
        + grey
        + b"\nendstream",
    ]
    for i, content in enumerate(pages):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {size[0]} {size[1]}] /Contents {6 + 2 * i} 0 R {extra} "
            "/Resources << /Font << /F 3 0 R >> /XObject << /P 4 0 R >> >> >>".encode()
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream".encode())
    out = bytearray(b"%PDF-1.4\n")
    places = list[int]()
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
    table = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{p:010d} 00000 n \n".encode() for p in places)
    out += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {trailer} >>\nstartxref\n{table}\n%%EOF\n".encode()
    return bytes(out)


def words(x: float, y: float, text: str, height: int = 10) -> str:
    """The operators that write a line."""
    return f"BT /F {height} Tf {x} {y} Td ({text}) Tj ET\n"


def picture(x: float, y: float, width: float, height: float) -> str:
    """The operators that draw /P."""
    return f"q {width} 0 0 {height} {x} {y} cm /P Do Q\n"
