"""Generators of tiny data sets in the layouts of their owners, and the published lists they must
agree with.
"""

import struct
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.io import savemat

from tests.datasets.folders import noise


def touch(root: Path, names: list[str]) -> None:
    """Empty files: enough for whatever does not decode."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def draw(root: Path, names: list[str]) -> None:
    """Images of random colours."""
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        noise(seed).save(root / name)


def write_text(path: Path, *lines: str) -> None:
    """A text file with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def write_live(
    root: Path, dmos: dict[str, float] | None = None, references: dict[str, str] | None = None
) -> Path:
    """`databaserelease2`: every folder begins with its distorted images, an image not in `dmos` is
    a reference.
    """
    names = [
        f"{folder}/img{n}.bmp"
        for folder, count in {
            "jp2k": 227,
            "jpeg": 233,
            "wn": 174,
            "gblur": 174,
            "fastfading": 174,
        }.items()
        for n in range(1, count + 1)
    ]
    known = {name: i / 10 for i, name in enumerate(names) if i % 5} if dmos is None else dmos
    scores = np.array([[known.get(name, 0.0) for name in names]])
    root.mkdir(parents=True)
    marks = np.array([[float(name not in known) for name in names]])
    savemat(
        root / "dmos_realigned.mat",
        {"dmos_new": scores, "dmos_std": 1 + scores / 1000, "orgs": marks},
    )
    cells = np.empty((1, len(names)), dtype=object)
    cells[0] = [(references or {}).get(name, f"ref{i % 29}.bmp") for i, name in enumerate(names)]
    savemat(root / "refnames_all.mat", {"refnames_all": cells})
    touch(root, names)
    return root


def write_csiq(root: Path) -> Path:
    """Four references, white noise, JPEG 2000 and contrast change, as the workbook only."""
    kinds = {
        "noise": ("AWGN", "AWGN"),
        "jpeg 2000": ("JPEG2000", "jpeg2000"),
        "contrast": ("contrast", "contrast"),
    }
    rows = [
        (1600 if ref == 0 else f"ref_{ref}", 1, kind, level, 0.01 * level, 0.1 * level + 0.01 * ref)
        for kind in kinds
        for ref in range(4)
        for level in (1, 2, 3)
    ]
    root.mkdir(parents=True)
    columns = ["image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"]
    with pd.ExcelWriter(root / "csiq.DMOS.xlsx", engine="openpyxl") as book:
        pd.DataFrame({"other": [1]}).to_excel(book, sheet_name="realign")
        pd.DataFrame(rows, columns=columns).to_excel(
            book, sheet_name="all_by_image", startrow=3, startcol=3, index=False
        )
    draw(
        root,
        [f"dst_imgs/{kinds[row[2]][0]}/{row[0]}.{kinds[row[2]][1]}.{row[3]}.png" for row in rows],
    )
    return root


def write_bid(root: Path) -> Path:
    """Twelve images with gaps in their numbers; the table as a worksheet of Excel 2, the simplest
    `.xls`.
    """
    rows: list[list[str | float]] = [
        ["Image Number", "Average Subjective Grade", "Number of Grades", "Grade #1", "Grade #2"]
    ]
    rows += [[2.0 * n + 1, n / 4, 2.0, n / 4 - 0.1, n / 4 + 0.1] for n in range(1, 12)]
    rows.append([590.0, 4.5, 1.0, 4.5, ""])
    records = struct.pack("<HHHH", 9, 4, 2, 16)
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            if isinstance(cell, str):
                records += (
                    struct.pack("<HHHH3sB", 4, 8 + len(cell), r, c, b"\0\0\0", len(cell))
                    + cell.encode()
                )
            else:
                records += struct.pack("<HHHH3sd", 3, 15, r, c, b"\0\0\0", cell)
    root.mkdir(parents=True)
    (root / "DatabaseGrades.xls").write_bytes(records + struct.pack("<HH", 10, 0))
    draw(root, [f"ImageDatabase/DatabaseImage{int(row[0]):04d}.JPG" for row in rows[1:]])
    return root


def write_koniq10k(root: Path) -> Path:
    """Twelve photographs and the table of the home page: counts of ratings, no sets."""
    header = '"image_name","c1","c2","c3","c4","c5","c_total","MOS","SD","MOS_zscore"'
    rows = [f'"{i}.jpg",{i},2,3,4,5,{14 + i},9.9,0.5,77' for i in range(12)]
    write_text(root / "koniq10k_scores_and_distributions.csv", header, *rows)
    draw(root, [f"1024x768/{i}.jpg" for i in range(12)])
    return root


def write_kadid10k(root: Path) -> Path:
    """Six references, the first and the last distortion, five levels."""
    names = [
        f"I{ref:02d}_{kind:02d}_{level:02d}.png"
        for ref in range(1, 7)
        for kind in (1, 25)
        for level in range(1, 6)
    ]
    rows = [
        f"{name},{name[:3]}.png,{5 - int(name[8]) / 2 - int(name[2]) / 20},0.64" for name in names
    ]
    write_text(root / "dmos.csv", "dist_img,ref_img,dmos,var", *rows)
    draw(root, [f"images/{name}" for name in names])
    return root


def write_tid2013(root: Path) -> Path:
    """Six references, two distortions, five levels; letter cases differ between table and disk."""
    names = [
        f"i{ref:02d}_{kind:02d}_{level}.bmp"
        for ref in range(1, 7)
        for kind in (1, 24)
        for level in range(1, 6)
    ]
    spelled = [
        name.upper() if i % 7 == 0 else name.capitalize() if i % 3 == 0 else name
        for i, name in enumerate(names)
    ]
    rows = [
        f"{7 - int(name[7]) - int(name[2]) / 10} {shown}"
        for name, shown in zip(names, spelled, strict=True)
    ]
    write_text(root / "mos_with_names.txt", *rows)
    write_text(root / "mos_std.txt", *(f"0.1{i:02d}" for i in range(len(names))))
    draw(
        root,
        [
            f"distorted_images/{name.upper() if i % 2 else name.capitalize()}"
            for i, name in enumerate(names)
        ],
    )
    return root


def write_spaq(root: Path) -> Path:
    """Twelve photographs and the workbook."""
    names = [f"{i:05d}.jpg" for i in range(1, 13)]
    table = pd.DataFrame({"Image name": names, "MOS": np.arange(12) * 8.0, "Brightness": 50.0})
    (root / "Annotations").mkdir(parents=True)
    table.to_excel(
        root / "Annotations" / "MOS and Image attribute scores.xlsx", index=False, engine="openpyxl"
    )
    draw(root, [f"TestImage/{name}" for name in names])
    return root


def write_flive(root: Path) -> Path:
    """Twelve photographs of two collections with the tables of the official split."""
    names = [
        f"{'voc_emotic_ava/AVA' if i % 2 else 'blur_dataset/out_of_focus'}__{i}.jpg"
        for i in range(12)
    ]
    write_text(
        root / "labels_image.csv",
        "top,left,name,mos",
        *(f"0,0,{name},{50 + i}" for i, name in enumerate(names)),
    )
    write_text(
        root / "labels>640.csv", "name_image,mos_image", *(f"{name},1" for name in names[:3])
    )
    small = [f"{name},1,{i == 0}" for i, name in enumerate(names[3:])]
    write_text(root / "labels<=640_padded.csv", "name_image,mos_image,is_valid", *small)
    draw(root, [f"database/{name}" for name in names])
    return root


def write_agiqa3k(root: Path) -> Path:
    """Two generators, eight prompts, one with a comma."""
    header = "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align"
    kinds = ("AttnGAN_normal", "sd1.5_lowstep")
    rows = [
        f'{kind}_{i:03d}.jpg,"a cat, number {i}",,,,{i / 2 + k / 10},0.3,4.9,0.1'
        for k, kind in enumerate(kinds)
        for i in range(8)
    ]
    write_text(root / "data.csv", header, *rows)
    draw(root, [row.split(",")[0] for row in rows])
    return root


def write_pipal(root: Path) -> Path:
    """Six references, two kinds, three variants; half of the images in an archive's folder."""
    for ref in range(1, 7):
        names = [
            f"A{ref:04d}_{kind}_{variant:02d}.bmp" for kind in ("00", "06") for variant in range(3)
        ]
        rows = [f"{name},{1400 + 10 * i + ref}.5" for i, name in enumerate(names)]
        write_text(root / "Train_Label" / f"A{ref:04d}.txt", *rows)
        draw(root, [f"{'Train_Dist' if ref < 4 else 'Distortion_2'}/{name}" for name in names])
    return root


def write_uhd_iqa(root: Path) -> Path:
    """Twelve photographs in the folders of the official split."""
    rows = [(f"{i}.jpg", ("training", "training", "validation", "test")[i % 4]) for i in range(12)]
    text = [f"{name},{0.2 + i / 20},{part},,3840" for i, (name, part) in enumerate(rows)]
    write_text(root / "uhd-iqa-metadata.csv", "image_name,quality_mos,set,subset,orig_width", *text)
    draw(root, [f"{part}/{name}" for name, part in rows])
    return root


def assert_as_listed(table: pd.DataFrame, shared_data: Path, folder: str, name: str) -> None:
    """The table has the images of LIQE's lists, with their scores, and with their deviations where
    it has any.
    """
    path = shared_data / "splits" / "liqe" / "IQA_Database" / folder / "splits2" / f"{name}_all.txt"
    listed = pd.read_csv(path, sep="\t", names=["image", "mos", "mos_std"]).set_index("image")
    assert set(listed.index) == set(table["image"])
    found = table.set_index("image").loc[listed.index]
    assert np.abs(found["mos"] - listed["mos"]).max() < 1e-4
    known = found["mos_std"].notna()
    assert not (np.abs(found["mos_std"] - listed["mos_std"])[known] >= 1e-4).any()
