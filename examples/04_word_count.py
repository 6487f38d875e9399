"""Word counts over the files of a folder: one queue of paths, one queue of results.

The workers share the queue of paths. The program puts every path and then one None a worker,
which tells that worker to stop. Without a folder it reads the sources of this project.

Run it:             dragon 04_word_count.py [FOLDER]
With plain Python:  python3 04_word_count.py --method spawn [FOLDER]
"""

import argparse
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent

parser = argparse.ArgumentParser(description="Count the words in the text files of a folder.")
parser.add_argument("--method", default="dragon", help="start method (default: %(default)s)")
parser.add_argument("folder", nargs="?", type=Path, default=PROJECT)
args = parser.parse_args()

if args.method == "dragon":
    import dragon  # first: it brings the start method "dragon"
import multiprocessing as mp
import re
from collections import Counter
from multiprocessing.queues import Queue

N_WORKERS = 3
SUFFIXES = {".c", ".h", ".md", ".py", ".txt"}
NOT_SOURCES = re.compile(r"\.|build|subprojects$")  # folders that hold made or fetched files


def text_files(folder: Path) -> list[Path]:
    """Return the text files below a folder, apart from those in hidden and build folders."""
    files = []
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink() and not NOT_SOURCES.match(path.name):
            files += text_files(path)
        elif path.is_file() and path.suffix in SUFFIXES:
            files.append(path)
    return files


def count_words(path: Path) -> Counter[str]:
    """Return how often each word of at least three letters occurs in a file."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return Counter(re.findall("[a-z]{3,}", text.lower()))


def work(paths: "Queue[Path | None]", counts: "Queue[Counter[str]]") -> None:
    """Count the words of file after file until a None arrives."""
    for path in iter(paths.get, None):
        counts.put(count_words(path))


if __name__ == "__main__":
    mp.set_start_method(args.method)
    paths: "Queue[Path | None]" = mp.Queue()
    counts: "Queue[Counter[str]]" = mp.Queue()
    workers = [mp.Process(target=work, args=(paths, counts)) for _ in range(N_WORKERS)]
    for worker in workers:
        worker.start()
    files = text_files(args.folder)
    for item in files + [None] * N_WORKERS:
        paths.put(item)
    total: Counter[str] = Counter()
    for _ in files:
        total += counts.get()
    for worker in workers:
        worker.join()
    print(f"{total.total()} words, {len(total)} different ones, in {len(files)} files")
    for word, n in sorted(total.items(), key=lambda item: (-item[1], item[0]))[:10]:
        print(f"{n:8} {word}")
