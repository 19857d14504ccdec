/* The native part: what the interpreter is slow at, for plain bytes. The pure one beside it does the same.

   Nothing here keeps anything: bytes in, bytes out. Written for the stable ABI, so that one build serves every
   Python from 3.11 on. */

#define PY_SSIZE_T_CLEAN
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#include <Python.h>

#include <stdint.h>
#include <string.h>

/* RFC 6455 §5.3. Eight bytes at once: the key repeats every four, in whatever order the machine keeps them. */
static void
xor_with_key(char *to, const char *from, Py_ssize_t size, const char *key)
{
    uint32_t half;
    memcpy(&half, key, sizeof half);
    const uint64_t whole = (uint64_t)half << 32 | half;
    Py_ssize_t at = 0;
    for (; size - at >= (Py_ssize_t)sizeof whole; at += (Py_ssize_t)sizeof whole) {
        uint64_t word;
        memcpy(&word, from + at, sizeof word);
        word ^= whole;
        memcpy(to + at, &word, sizeof word);
    }
    for (; at < size; at++) {
        to[at] = (char)(from[at] ^ key[at & 3]);
    }
}

PyDoc_STRVAR(mask_doc, "mask(data, key, /)\n--\n\nMask or unmask bytes with a key of four bytes.");

static PyObject *
mask(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "mask takes bytes and a key");
        return NULL;
    }
    char *key;
    Py_ssize_t key_size;
    if (PyBytes_AsStringAndSize(args[1], &key, &key_size) < 0) {
        return NULL;
    }
    if (key_size != 4) {
        PyErr_SetString(PyExc_ValueError, "a key has four bytes");
        return NULL;
    }
    Py_buffer data;
    if (PyObject_GetBuffer(args[0], &data, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *masked = PyBytes_FromStringAndSize(NULL, data.len);
    if (masked != NULL) {
        xor_with_key(PyBytes_AsString(masked), data.buf, data.len, key);
    }
    PyBuffer_Release(&data);
    return masked;
}

PyDoc_STRVAR(join_doc, "join(pieces, key, /)\n--\n\nThe bytes of a list, joined and unmasked in one pass.");

static PyObject *
join(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !PyList_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "join takes a list of bytes and a key");
        return NULL;
    }
    char *key, *piece;
    Py_ssize_t size, total = 0;
    if (PyBytes_AsStringAndSize(args[1], &key, &size) < 0) {
        return NULL;
    }
    if (size != 4) {
        PyErr_SetString(PyExc_ValueError, "a key has four bytes");
        return NULL;
    }
    const Py_ssize_t pieces = PyList_Size(args[0]);
    for (Py_ssize_t number = 0; number < pieces; number++) {
        if (PyBytes_AsStringAndSize(PyList_GetItem(args[0], number), &piece, &size) < 0) {
            return NULL;
        }
        total += size; /* they are all in memory: it can't overflow */
    }
    PyObject *joined = PyBytes_FromStringAndSize(NULL, total);
    if (joined == NULL) {
        return NULL;
    }
    char *to = PyBytes_AsString(joined);
    Py_ssize_t at = 0;
    for (Py_ssize_t number = 0; number < pieces; number++) {
        PyBytes_AsStringAndSize(PyList_GetItem(args[0], number), &piece, &size);
        char rotated[4];
        for (int byte = 0; byte < 4; byte++) {
            rotated[byte] = key[(at + byte) & 3];
        }
        xor_with_key(to + at, piece, size, rotated);
        at += size;
    }
    return joined;
}

/* The length that a masked head of a whole Text or Binary frame states; -1 if it is another, or not all there. */
static Py_ssize_t
length_of(const unsigned char *head, Py_ssize_t left, Py_ssize_t *head_size)
{
    if (left < 6 || (head[0] != 0x81 && head[0] != 0x82) || !(head[1] & 0x80)) {
        return -1;
    }
    const int stated = head[1] & 0x7F;
    if (stated < 126) {
        *head_size = 6;
        return stated;
    }
    const Py_ssize_t longer = (Py_ssize_t)head[2] << 8 | head[3];
    if (stated == 127 || left < 8 || longer < 126) { /* RFC 6455 §5.2: the fewest bytes */
        return -1;
    }
    *head_size = 8;
    return longer;
}

/* Append a payload, unmasked, and its text, or None if it is Binary; 0 if it is no text, -1 for an error. */
static int
append_message(PyObject *run, const unsigned char *head, Py_ssize_t head_size, Py_ssize_t length)
{
    const char *key = (const char *)head + head_size - 4;
    PyObject *payload = PyBytes_FromStringAndSize(NULL, length);
    if (payload == NULL) {
        return -1;
    }
    char *bytes = PyBytes_AsString(payload);
    xor_with_key(bytes, key + 4, length, key);
    PyObject *text = NULL;
    if (head[0] == 0x82) {
        Py_INCREF(Py_None);
        text = Py_None;
    } else {
        text = PyUnicode_DecodeUTF8(bytes, length, NULL);
    }
    int done = -1;
    if (text == NULL) {
        if (PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
            PyErr_Clear();
            done = 0;
        }
    } else if (PyList_Append(run, payload) == 0 && PyList_Append(run, text) == 0) {
        done = 1;
    }
    Py_XDECREF(text);
    Py_DECREF(payload);
    return done;
}

PyDoc_STRVAR(single_doc, "single(data, longest, /)\n--\n\n"
    "Payload and text (None: Binary) of the message that the bytes are, if they are one masked, whole, plain message\n"
    "of at most `longest` bytes, and nothing else; None if they are anything else.");

static PyObject *
single(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "single takes bytes and a length");
        return NULL;
    }
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(args[0], &data, &size) < 0) {
        return NULL;
    }
    const Py_ssize_t longest = PyLong_AsSsize_t(args[1]);
    if (longest == -1 && PyErr_Occurred()) {
        return NULL;
    }
    const unsigned char *head = (const unsigned char *)data;
    Py_ssize_t head_size = 0;
    const Py_ssize_t length = length_of(head, size, &head_size);
    if (length < 0 || length > longest || length != size - head_size) {
        Py_RETURN_NONE;
    }
    PyObject *message = PyList_New(0);
    if (message == NULL) {
        return NULL;
    }
    const int done = append_message(message, head, head_size, length);
    if (done == 1) {
        return message;
    }
    Py_DECREF(message);
    if (done < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(scan_doc, "scan(data, position, longest, count, size, /)\n--\n\n"
    "The masked whole Text and Binary messages at a position, as far as they are plain, none longer than `longest`.\n\n"
    "Stops behind `count` of them, or `size` bytes. Returns their payloads and texts (None: Binary) in one list, and\n"
    "the position behind them. What it stops at is for somebody else to judge.");

static PyObject *
scan(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t arguments)
{
    if (arguments != 5) {
        PyErr_SetString(PyExc_TypeError, "scan takes five arguments");
        return NULL;
    }
    char *data;
    Py_ssize_t end, numbers[4];
    if (PyBytes_AsStringAndSize(args[0], &data, &end) < 0) {
        return NULL;
    }
    for (int number = 0; number < 4; number++) {
        numbers[number] = PyLong_AsSsize_t(args[number + 1]);
        if (numbers[number] == -1 && PyErr_Occurred()) {
            return NULL;
        }
    }
    Py_ssize_t position = numbers[0], count = numbers[2], size = numbers[3];
    const Py_ssize_t longest = numbers[1];
    if (position < 0 || position > end) {
        PyErr_SetString(PyExc_ValueError, "there is no such position");
        return NULL;
    }
    PyObject *run = PyList_New(0);
    if (run == NULL) {
        return NULL;
    }
    while (count > 0 && size > 0) {
        const unsigned char *head = (const unsigned char *)data + position;
        const Py_ssize_t left = end - position;
        Py_ssize_t head_size = 0;
        const Py_ssize_t length = length_of(head, left, &head_size);
        if (length < 0 || length > longest || length > left - head_size) {
            break;
        }
        const int done = append_message(run, head, head_size, length);
        if (done < 0) {
            Py_DECREF(run);
            return NULL;
        }
        if (done == 0) {
            break;
        }
        position += head_size + length;
        size -= length;
        count--;
    }
    return Py_BuildValue("(Nn)", run, position);
}

static PyMethodDef methods[] = {
    {"mask", (PyCFunction)(void (*)(void))mask, METH_FASTCALL, mask_doc},
    {"join", (PyCFunction)(void (*)(void))join, METH_FASTCALL, join_doc},
    {"scan", (PyCFunction)(void (*)(void))scan, METH_FASTCALL, scan_doc},
    {"single", (PyCFunction)(void (*)(void))single, METH_FASTCALL, single_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    "trioktor.protocol._native",
    "The native part of the protocol core.",
    0,
    methods,
    slots,
    NULL,
    NULL,
    NULL,
};

PyMODINIT_FUNC
PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
