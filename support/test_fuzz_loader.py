"""Whatever is in a file, the loader gives a sound data set or one line: files mutated by hypothesis.

python -m pytest support/test_fuzz_loader.py                # 200 mutants
python -m pytest support/test_fuzz_loader.py -m campaign    # 12 000
"""

import io
from pathlib import Path

import numpy as np
import pytest

from uea_loader import DataError, load

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

NPZ = io.BytesIO()
np.savez_compressed(NPZ, X=np.arange(12.0).reshape(2, 3, 2), y=["k", "b"])
FILES = {
    "a.ts": b"@problemName t\n@classLabel true b a\n@data\n1,2.5,?:4,5,6:a\n7,8:-9e3,1:b\n",
    "a.arff": b"@relation t\n@attribute s relational\n@attribute t0 numeric\n@end s\n"
    b"@attribute c {'b, one',a}\n@data\n'1,2\\n3,?','b, one'\n\"5,6\\n7,8\",a\n",
    "flat.arff": b"@relation u\n@attribute t0 real\n@attribute t1 integer\n@attribute k {1,2}\n"
    b"@data\n1,2.5,1\n3,?,2\n",
    "a.csv": b"id,time,class,x,y\nr,2,u,1,2\nr,2024-01-01,u,?,4\n\nq,1,v,5e-3,6\n",
    "a.npz": NPZ.getvalue(),
}
JUNK = "? NaN inf 1e999 1e39 - . e \0 \xff ' \" \\n \\ , : ; \n \r\n \t { @data\n @end 1_0 id,id,"
JUNK = [word.encode("latin-1") for word in JUNK.split(" ")] + [b"1," * 5000, b"9" * 400, b":" * 400]


def cut(data, at, size, put):
    at = at % (len(data) + 1)
    return data[:at] + put + data[at + size :]


ENCODED = [lambda d: d.decode("latin-1").encode("utf-16"), lambda d: b"\xef\xbb\xbf" + d,
           lambda d: d.replace(b"\n", b"\r"), lambda d: d.upper(), lambda d: d[::-1],
           lambda d: d.replace(b",", b";"), lambda d: b"\n".join(sorted(d.split(b"\n")))]  # fmt: skip
CUT = st.builds(
    lambda *how: lambda data: cut(data, *how),
    st.integers(0, 500),
    st.sampled_from([0, 0, 1, 2, 9, 99, 999]),
    st.sampled_from(JUNK) | st.binary(max_size=3),
)
MUTATIONS = st.lists(CUT | st.sampled_from(ENCODED), max_size=3)


def loads_or_refuses(name, mutations):
    data = FILES[name]
    for mutation in mutations:
        data = mutation(data)
    path = Path(f"mutant{Path(name).suffix}")  # in the test's own folder
    path.write_bytes(data)
    try:
        X, y, classes, *_ = load(path)
    except DataError as e:
        assert mutations and "\n" not in str(e) and len(str(e)) < 1000
        return
    assert X.dtype == np.float32 and X.ndim == 3 and X.size and not np.isinf(X).any()
    assert not np.isnan(X).all()
    if y is not None:
        assert y.dtype == np.int64 and y.shape == X.shape[:1] and {*y} <= {*range(len(classes))}


@pytest.mark.parametrize("n", [200, pytest.param(12_000, marks=pytest.mark.campaign)])
def test_a_mutated_file_loads_soundly_or_is_refused_in_one_line(n):
    options = {"max_examples": n, "deadline": None, "database": None, "derandomize": n < 1000}
    judge = hypothesis.given(st.sampled_from(sorted(FILES)), MUTATIONS)(loads_or_refuses)
    hypothesis.settings(**options)(judge)()
    for name in FILES:
        loads_or_refuses(name, [])
