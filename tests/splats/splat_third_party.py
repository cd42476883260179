"""make_cloud(6) as @playcanvas/splat-transform 2.7.1 (with Niantic's code) wrote it from our .ply: .spz version 3, packed .ply."""

import base64
import zlib

SPZ = base64.b64decode(
    "H4sIAAAAAAAAAw2PMWhUURBFnyZYBfwhhZYfbSxSfGOnCA8s/I3hBYu00yRg5RBCsl1mQfDjJjogQkQDw24SVkNgOlOOpvnlI1ibtRHBwrUQiY"
    "rPV9xiuJcz987fvR8mnHMXsiamnDuccTrtHn1PH8+7T1Nud9LVP9KNn+nh73TpVxpMu9k/aeGiOznn5s/S37P07V96M+nCuy+Lt0+2uqvP1l5t"
    "bnZfPuWN9ZWN3lr/eX9pf3930H3Rf33wdmuw13v84XN9em35wZ17o+vvrxwez+1c7d16cnNGtztHTSMNC0H00ZS5KkfGRuCZwYStBMbKQ0HSSq"
    "DLHcDaAAwiRhQMDD5CoKAmMEYhYpBK1Npm2KLUNaMnjVYYIyJjSRqQglBEskJQuCSqKCA07VHZYQXMVGMZmRFWlhMg+YGQR6NC8100XwW2W+2I"
    "SmXR+1LHZqhSIo7RMl2DAmumB2zaYVEPfSASi7lC3qEKkjtnJqIFD1Aw5f3Z/A/+LIEllgEAAA==")
PACKED_PLY = zlib.decompress(base64.b64decode(
    "eNp11U9o1FgcwPHgpTh6EPayFMSgICy6bZPM+g/aKXjYgyh7WdZFYUjTdGaYJC99+fuSzGQmk2nStNPOtB2LMB70JIgi7ME9bT15ED0o6kn8h9"
    "TTnvTkCnH0UFnM7/r9JS/vw0uIKpHcHMIyr9MzFYXHpChVdF0Si6IyW+EVmhmbyAlIlkVFp38VFRHzujhLzxBaUyVe/1nHvKJ9uZ9mx46PMTlR"
    "Er9eKpQNpUozORUjVcQ6oeckNHyEXFGKdlYkWdH5LvJ2xu3DSLKik7WmJvBDnA2PCDzK3A+04M6IwKPMHeKsWMqKM1kr46xYyoozO6dlDieiTR"
    "/7dpVRGWaVF6ribFFFWkWvICV7ipHOw9OvzuyRgCSEd7aglf/3eKHMY3quiEVNL04AnQE6C3QO6Hmg/wJ0aJ/HgX4C6CchFwiGxAxEZiAzA6EZ"
    "SM1AbAZyMxCcgeQsJGfBs4bkLCRnITkLyVlIzkJyFpKzkJyD5Bwk58DXHJJzkJyD5Bwk5yA5B8k5SJ6H5HlInofkefALz+eGv7NiWeRnRZz7K6"
    "xu3fA6W7sP9f9ZL18pjDw6WqCftwpxsXp3+c25renJD1u+OF5YPby/kLh/T53vp1Mnzz6f2vPq4dSn/njhXmO0cPNqvrD5w/SRuwevHHp79vdb"
    "f9xJ013ldpBcyK2l46PUnZQaUPueTl9jT1/86Rp5/fjHberFfweof42jOnX72fb2n++ddORVqt4Xr+8foV78ttdcPvOk9/LdqacPko9pOkntph"
    "pRp1YjpNMndoKa0VK9hJ1eyUdRlZBBLZS9aCFEnm0tBj0jQg0LdT0zUGpIaMaL1mU3Njda9gI2Q99MlgIc9Z2OsrwU2cHaSm2gNNZqTUvWWqtC"
    "vS13NLNN8GIcobhleYbhI1fQ5he9JPIbjizjsCO0w7pHWgLx6y3c7a2GrtH06wte07Rb/koYljqGpHqbkq4tWOs9d1NFsUM2BKcW1FGy1vXb6n"
    "zYbQS1MFlvXQ7jtnXJi+OB1SMy0rrEVTuJ4fjxsraqCu6lQaBbAzxH6tZGZT4JXD8JTPczptFrAw=="))
