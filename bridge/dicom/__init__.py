"""DICOM files as bytes: read, checked, transcoded, compared. No input or output.

transcode.py         one file: one transfer syntax in, another one out
file_meta.py         the file meta information: read, and written anew
elements.py          data elements as positions in a buffer
vrs.py               value representations, and their byte order
rewrite.py           elements of one encoding to bytes of another, values untouched
inflate.py           the data set of a deflated file
syntax_label.py      is it encoded as its transfer syntax says
syntaxes.py          the transfer syntaxes
description.py       group 0028: what the pixels are
encapsulation.py     fragments, and which of them make which frame
frames.py            compressed frames: found, inspected, decoded, checked
native.py            uncompressed frames, and their byte order
codestream.py        what a compressed frame says about itself
jpeg_xl_header.py    the same for JPEG XL
codecs.py            the table: what decodes and encodes which kind of code stream
decoders.py          the decoders of that table
encoders.py          its encoders
samples.py           what a decoder returns, as the samples that group 0028 asks for
colour.py            what the decoded colours are called
changed_elements.py  which bytes may change: the list, and what group 0028 says afterwards
new_pixel_data.py    the Pixel Data that is written, and the chunks of the whole file
facts.py             what a rule can know of a file
orthanc_id.py        the identifier that Orthanc computes from a file
fingerprint.py       a sum over the decoded samples, whatever the syntax
content_sum.py       a sum over everything else, whatever the syntax
deidentify.py        a copy that names nobody
confidentiality.py   the elements that identify somebody
selftest.py          does every decoder decode here
"""
