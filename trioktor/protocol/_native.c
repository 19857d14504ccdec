/* The native part: what the interpreter is slow at, for plain bytes. The pure one beside it does the same.

   But for `Filling`, nothing here keeps anything: bytes and frames in, bytes and frames out. Written for the stable ABI, so that one build
   serves every Python from 3.11 on: so nothing is left uncounted that is immortal only in later ones, and no
   `Py_RETURN_NONE` is used. */

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

/* The four bytes of a key; NULL with an error set, if it is none. */
static const char *
bytes_of_key(PyObject *object)
{
    char *key;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(object, &key, &size) < 0) {
        return NULL;
    }
    if (size != 4) {
        PyErr_SetString(PyExc_ValueError, "a key has four bytes");
        return NULL;
    }
    return key;
}

PyDoc_STRVAR(mask_doc, "mask(data, key, /)\n--\n\nMask or unmask bytes with a key of four bytes.");

static PyObject *
mask(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "mask takes bytes and a key");
        return NULL;
    }
    const char *key = bytes_of_key(args[1]);
    Py_buffer data;
    if (key == NULL || PyObject_GetBuffer(args[0], &data, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *masked = PyBytes_FromStringAndSize(NULL, data.len);
    if (masked != NULL) {
        xor_with_key(PyBytes_AsString(masked), data.buf, data.len, key);
    }
    PyBuffer_Release(&data);
    return masked;
}

PyDoc_STRVAR(mask_frame_doc, "mask_frame(head, data, key, /)\n--\n\n"
    "A masked frame: what its head begins with, the key of four bytes, and the payload, masked.");

static PyObject *
mask_frame(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "mask_frame takes the head's first bytes, the payload and a key");
        return NULL;
    }
    char *head;
    Py_ssize_t head_size;
    if (PyBytes_AsStringAndSize(args[0], &head, &head_size) < 0) {
        return NULL;
    }
    const char *key = bytes_of_key(args[2]);
    Py_buffer data;
    if (key == NULL || PyObject_GetBuffer(args[1], &data, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *frame = NULL;
    if (data.len <= PY_SSIZE_T_MAX - head_size - 4) {
        frame = PyBytes_FromStringAndSize(NULL, head_size + 4 + data.len);
    } else {
        PyErr_NoMemory();
    }
    if (frame != NULL) {
        char *to = PyBytes_AsString(frame);
        memcpy(to, head, (size_t)head_size);
        memcpy(to + head_size, key, 4);
        xor_with_key(to + head_size + 4, data.buf, data.len, key);
    }
    PyBuffer_Release(&data);
    return frame;
}

/* The payload of a long frame, while it arrives: bytes in the making, unmasked where they stand.

   What is free behind them is a buffer, so that a socket can be read into it. There is room for
   `GROWTH` times what has come, and never for more than the frame: a header alone allocates nothing. */
typedef struct {
    PyObject_HEAD
    PyObject *bytes; /* NULL while there is nothing, and once it was taken */
    Py_ssize_t length, filled, room;
    Py_ssize_t exports;
    int is_masked;
    char key[4];
} Filling;

enum { LEAST_ROOM = 4096, GROWTH = 32 };

static int
grow(Filling *self, Py_ssize_t wanted)
{
    if (wanted <= self->room) {
        return 0;
    }
    if (self->exports > 0) {
        PyErr_SetString(PyExc_BufferError, "it is being read into");
        return -1;
    }
    Py_ssize_t room = wanted > self->length / GROWTH ? self->length : wanted * GROWTH;
    if (room < LEAST_ROOM) {
        room = self->length < LEAST_ROOM ? self->length : LEAST_ROOM;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, room);
    if (bytes == NULL) {
        return -1;
    }
    if (self->filled > 0) {
        memcpy(PyBytes_AsString(bytes), PyBytes_AsString(self->bytes), (size_t)self->filled);
    }
    Py_XDECREF(self->bytes);
    self->bytes = bytes;
    self->room = room;
    return 0;
}

/* The key as it stands behind what is there. */
static void
rotate_key(const Filling *self, char rotated[4])
{
    for (int byte = 0; byte < 4; byte++) {
        rotated[byte] = self->key[(self->filled + byte) & 3];
    }
}

static void
unmask(Filling *self, const char *from, Py_ssize_t size)
{
    char *to = PyBytes_AsString(self->bytes) + self->filled;
    if (self->is_masked) {
        char rotated[4];
        rotate_key(self, rotated);
        xor_with_key(to, from, size, rotated);
    } else if (to != from) {
        memcpy(to, from, (size_t)size);
    }
    self->filled += size;
}

PyDoc_STRVAR(append_doc, "append($self, data, /)\n--\n\nAdd bytes that were read elsewhere.");

static PyObject *
filling_append(Filling *self, PyObject *data)
{
    char *from;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(data, &from, &size) < 0) {
        return NULL;
    }
    if (size > self->length - self->filled) {
        PyErr_SetString(PyExc_ValueError, "more than the frame holds");
        return NULL;
    }
    if (size > 0) {
        if (grow(self, self->filled + size) < 0) {
            return NULL;
        }
        unmask(self, from, size);
    }
    return Py_NewRef(Py_None);
}

PyDoc_STRVAR(advance_doc, "advance($self, count, /)\n--\n\nSo many bytes were read into the buffer.");

static PyObject *
filling_advance(Filling *self, PyObject *count)
{
    const Py_ssize_t size = PyLong_AsSsize_t(count);
    if (size == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (size < 0 || size > self->room - self->filled) {
        PyErr_SetString(PyExc_ValueError, "more than the buffer holds");
        return NULL;
    }
    if (size > 0) {
        unmask(self, PyBytes_AsString(self->bytes) + self->filled, size);
    }
    return Py_NewRef(Py_None);
}

PyDoc_STRVAR(take_doc, "take($self, /)\n--\n\nThe bytes that are there, once; then it begins anew, with what is missing.");

static PyObject *
filling_take(Filling *self, PyObject *Py_UNUSED(ignored))
{
    if (self->exports > 0) {
        PyErr_SetString(PyExc_BufferError, "it is being read into");
        return NULL;
    }
    PyObject *bytes = self->bytes;
    if (self->filled < self->room || bytes == NULL) {
        bytes = PyBytes_FromStringAndSize(bytes == NULL ? NULL : PyBytes_AsString(bytes), self->filled);
        if (bytes == NULL) {
            return NULL;
        }
        Py_CLEAR(self->bytes);
    }
    self->bytes = NULL;
    if (self->is_masked) {
        char rotated[4];
        rotate_key(self, rotated);
        memcpy(self->key, rotated, sizeof rotated);
    }
    self->length -= self->filled;
    self->filled = self->room = 0;
    return bytes;
}

static int
filling_getbuffer(Filling *self, Py_buffer *view, int flags)
{
    const Py_ssize_t missing = self->length - self->filled;
    const Py_ssize_t wanted = missing < LEAST_ROOM ? missing : LEAST_ROOM;
    if (self->bytes == NULL || self->room - self->filled < wanted) {
        if (grow(self, self->filled + wanted) < 0) {
            view->obj = NULL;
            return -1;
        }
    }
    char *to = self->bytes == NULL ? self->key : PyBytes_AsString(self->bytes) + self->filled;
    if (PyBuffer_FillInfo(view, (PyObject *)self, to, self->room - self->filled, 0, flags) < 0) {
        return -1;
    }
    self->exports++;
    return 0;
}

static void
filling_releasebuffer(Filling *self, Py_buffer *Py_UNUSED(view))
{
    self->exports--;
}

static PyObject *
filling_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    Py_ssize_t length;
    PyObject *key;
    if (keywords != NULL && PyDict_Size(keywords) > 0) {
        PyErr_SetString(PyExc_TypeError, "Filling takes no keywords");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments, "nO", &length, &key)) {
        return NULL;
    }
    char *bytes = NULL;
    Py_ssize_t size = 0;
    if (key != Py_None && PyBytes_AsStringAndSize(key, &bytes, &size) < 0) {
        return NULL;
    }
    if (length < 0 || (key != Py_None && size != 4)) {
        PyErr_SetString(PyExc_ValueError, "a length, and a key that has four bytes");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Filling *self = (Filling *)allocate(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->bytes = NULL;
    self->length = length;
    self->filled = self->room = self->exports = 0;
    self->is_masked = key != Py_None;
    if (self->is_masked) {
        memcpy(self->key, bytes, sizeof self->key);
    }
    return (PyObject *)self;
}

static void
filling_dealloc(Filling *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    Py_CLEAR(self->bytes);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef filling_methods[] = {
    {"append", (PyCFunction)(void (*)(void))filling_append, METH_O, append_doc},
    {"advance", (PyCFunction)(void (*)(void))filling_advance, METH_O, advance_doc},
    {"take", (PyCFunction)(void (*)(void))filling_take, METH_NOARGS, take_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(filling_doc, "Filling(length, key, /)\n--\n\n"
    "The payload of a frame while it arrives, unmasked with a key of four bytes, or None. What is free of it is a buffer.");

static PyType_Slot filling_slots[] = {
    {Py_tp_doc, (void *)filling_doc},
    {Py_tp_new, (void *)filling_new},
    {Py_tp_dealloc, (void *)filling_dealloc},
    {Py_tp_methods, filling_methods},
    {Py_bf_getbuffer, (void *)filling_getbuffer},
    {Py_bf_releasebuffer, (void *)filling_releasebuffer},
    {0, NULL},
};

static PyType_Spec filling_spec = {
    "trioktor.protocol._native.Filling",
    sizeof(Filling),
    0,
    Py_TPFLAGS_DEFAULT,
    filling_slots,
};

/* The length that a head of a whole Text or Binary frame states; -1 if it is another, or not all there.

   It has a key of so many bytes, four or none; it may have the `reserved` bits, which belong to extensions. */
static Py_ssize_t
length_of(const unsigned char *head, Py_ssize_t left, int reserved, int key_size, Py_ssize_t *head_size)
{
    const int plain = left < 2 + key_size ? 0 : head[0] & ~reserved;
    if ((plain != 0x81 && plain != 0x82) || (head[1] & 0x80) != (key_size ? 0x80 : 0)) {
        return -1;
    }
    const int stated = head[1] & 0x7F;
    if (stated < 126) {
        *head_size = 2 + key_size;
        return stated;
    }
    if (stated == 127 || left < 4 + key_size) {
        return -1;
    }
    const Py_ssize_t longer = (Py_ssize_t)head[2] << 8 | head[3];
    if (longer < 126) { /* RFC 6455 §5.2: the fewest bytes */
        return -1;
    }
    *head_size = 4 + key_size;
    return longer;
}

enum { WHOLE_TEXT = 0x81 };

/* The first byte of a frame; -1 with an error set, if it is none. */
static int
first_byte_of(PyObject *number)
{
    const long first_byte = PyLong_AsLong(number);
    if (first_byte < 0 || first_byte > 0xFF) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "a first byte is one byte");
        }
        return -1;
    }
    return (int)first_byte;
}

enum { FIRST_BYTE, DATA, DECODED, ATTRIBUTES };

static const char *const attribute_names[ATTRIBUTES] = {"first_byte", "data", "decoded"};

/* The classes of Text and Binary frames, and the slots that both have: read and written past the search for a name. */
typedef struct {
    PyObject *given, *text, *binary;
    PyObject *slots[ATTRIBUTES];
    descrsetfunc set_slot;
    PyObject *owned; /* keeps all of that alive, for whoever has a reference to it */
} Kinds;

typedef struct {
    PyObject *names[ATTRIBUTES];
    void *plain_new; /* how plain objects are made */
    descrgetfunc get_slot;
    Kinds kinds; /* those that were given last: they are always the same */
} State;

static PyObject *
find_slot(PyObject *name, PyObject *text, PyObject *binary)
{
    PyObject *slot = PyObject_GetAttr(text, name);
    PyObject *other = slot == NULL ? NULL : PyObject_GetAttr(binary, name);
    if (other != NULL && (slot != other || !Py_IS_TYPE(slot, &PyMemberDescr_Type))) {
        PyErr_SetString(PyExc_TypeError, "the kinds of frames share their slots");
        Py_CLEAR(other);
    }
    if (other == NULL) {
        Py_CLEAR(slot);
    }
    Py_XDECREF(other);
    return slot;
}

/* `owned` of what is found is to be let go. */
static int
learn_kinds(State *state, PyObject *given, Kinds *found_kinds)
{
    if (!PyTuple_Check(given) || PyTuple_Size(given) != 2) {
        PyErr_SetString(PyExc_TypeError, "there are two kinds of frames");
        return -1;
    }
    Kinds kinds = {.given = given, .text = PyTuple_GetItem(given, 0), .binary = PyTuple_GetItem(given, 1)};
    kinds.set_slot = (descrsetfunc)PyType_GetSlot(&PyMemberDescr_Type, Py_tp_descr_set);
    for (int kind = 0; kind < 2; kind++) {
        PyObject *type = kind ? kinds.binary : kinds.text;
        if (!PyType_Check(type) || PyType_GetSlot((PyTypeObject *)type, Py_tp_new) != state->plain_new) {
            PyErr_SetString(PyExc_TypeError, "a kind of frames is a class of plain objects");
            return -1;
        }
    }
    int found = 0;
    while (found < ATTRIBUTES && (kinds.slots[found] = find_slot(state->names[found], kinds.text, kinds.binary))) {
        found++;
    }
    if (found == ATTRIBUTES) {
        kinds.owned = PyTuple_Pack(4, given, kinds.slots[FIRST_BYTE], kinds.slots[DATA], kinds.slots[DECODED]);
    }
    while (found > 0) {
        Py_DECREF(kinds.slots[--found]);
    }
    if (kinds.owned == NULL) {
        return -1;
    }
    PyObject *old = state->kinds.owned;
    *found_kinds = state->kinds = kinds;
    Py_INCREF(kinds.owned);
    Py_XDECREF(old); /* last, for it may run anybody's code, which gives other kinds */
    return 0;
}

/* What is known of the given kinds; `owned` is to be let go. */
static int
kinds_of(PyObject *module, PyObject *given, Kinds *kinds)
{
    State *state = PyModule_GetState(module);
    if (given != state->kinds.given) {
        return learn_kinds(state, given, kinds);
    }
    *kinds = state->kinds;
    Py_INCREF(kinds->owned);
    return 0;
}

/* A frame of parts that were checked, past its constructor. */
static PyObject *
make_frame(const Kinds *kinds, int first_byte, PyObject *payload, PyObject *text)
{
    PyObject *kind = (first_byte & 0x0F) == 1 ? kinds->text : kinds->binary;
    PyObject *number = PyLong_FromLong(first_byte);
    PyObject *frame = number == NULL ? NULL : PyType_GenericAlloc((PyTypeObject *)kind, 0);
    const descrsetfunc set_slot = kinds->set_slot;
    if (frame != NULL
        && (set_slot(kinds->slots[FIRST_BYTE], frame, number) < 0 || set_slot(kinds->slots[DATA], frame, payload) < 0
            || set_slot(kinds->slots[DECODED], frame, text) < 0)) {
        Py_CLEAR(frame);
    }
    Py_XDECREF(number);
    return frame;
}

/* The text of a plain Text message, None of all others; NULL if it is not UTF-8, or for an error, which is set. */
static PyObject *
text_of(int first_byte, const char *bytes, Py_ssize_t length)
{
    if (first_byte != WHOLE_TEXT) {
        return Py_NewRef(Py_None);
    }
    PyObject *text = PyUnicode_DecodeUTF8(bytes, length, NULL);
    if (text == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
    }
    return text;
}

/* The frame at a head, unmasked, which is all there: 0 if it is no text, -1 for an error.

   What a frame with reserved bits holds only its extension can tell. */
static int
read_message(
    const Kinds *kinds, const unsigned char *head, Py_ssize_t head_size, int key_size, Py_ssize_t length, PyObject **frame)
{
    const char *from = (const char *)head + head_size;
    PyObject *payload = PyBytes_FromStringAndSize(NULL, length);
    if (payload == NULL) {
        return -1;
    }
    char *bytes = PyBytes_AsString(payload);
    if (key_size) {
        xor_with_key(bytes, from, length, from - key_size);
    } else {
        memcpy(bytes, from, (size_t)length);
    }
    PyObject *text = text_of(head[0], bytes, length);
    int done = -1;
    if (text != NULL) {
        *frame = make_frame(kinds, head[0], payload, text);
        done = *frame == NULL ? -1 : 1;
    } else if (!PyErr_Occurred()) {
        done = 0;
    }
    Py_XDECREF(text);
    Py_DECREF(payload);
    return done;
}

PyDoc_STRVAR(single_doc, "single(data, longest, key_size, kinds, /)\n--\n\n"
    "The frame that the bytes are, if they are one masked, whole, plain message of at most `longest` bytes, and nothing\n"
    "else; None if they are anything else. `kinds` are the classes of Text and Binary frames.");

static PyObject *
single(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 4) {
        PyErr_SetString(PyExc_TypeError, "single takes bytes, two lengths and two classes");
        return NULL;
    }
    Kinds kinds;
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(args[0], &data, &size) < 0) {
        return NULL;
    }
    const Py_ssize_t longest = PyLong_AsSsize_t(args[1]);
    if (longest == -1 && PyErr_Occurred()) {
        return NULL;
    }
    const Py_ssize_t given = PyLong_AsSsize_t(args[2]);
    if (given == -1 && PyErr_Occurred()) {
        return NULL;
    }
    const int key_size = given ? 4 : 0;
    const unsigned char *head = (const unsigned char *)data;
    Py_ssize_t head_size = 0;
    const Py_ssize_t length = length_of(head, size, 0, key_size, &head_size);
    if (kinds_of(module, args[3], &kinds) < 0) {
        return NULL;
    }
    if (length < 0 || length > longest || length != size - head_size) {
        Py_DECREF(kinds.owned);
        return Py_NewRef(Py_None);
    }
    PyObject *frame;
    const int done = read_message(&kinds, head, head_size, key_size, length, &frame);
    Py_DECREF(kinds.owned);
    if (done == 1) {
        return frame;
    }
    if (done < 0) {
        return NULL;
    }
    return Py_NewRef(Py_None);
}

PyDoc_STRVAR(message_doc, "message(first_byte, data, kinds, /)\n--\n\n"
    "The frame of a whole message: what it holds, and its text, if it is plain and UTF-8; else that is None. `kinds` are\n"
    "the classes of Text and Binary frames.");

static PyObject *
message(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "message takes a first byte, bytes and two classes");
        return NULL;
    }
    Kinds kinds;
    char *data;
    Py_ssize_t size;
    const int first_byte = first_byte_of(args[0]);
    if (first_byte < 0 || PyBytes_AsStringAndSize(args[1], &data, &size) < 0) {
        return NULL;
    }
    PyObject *text = text_of(first_byte, data, size);
    if (text == NULL) {
        if (PyErr_Occurred()) {
            return NULL;
        }
        text = Py_NewRef(Py_None);
    }
    if (kinds_of(module, args[2], &kinds) < 0) {
        Py_DECREF(text);
        return NULL;
    }
    PyObject *frame = make_frame(&kinds, first_byte, args[1], text);
    Py_DECREF(kinds.owned);
    Py_DECREF(text);
    return frame;
}

PyDoc_STRVAR(scan_doc, "scan(data, position, longest, count, size, reserved, key_size, kinds, /)\n--\n\n"
    "The masked whole Text and Binary messages at a position, as far as they are plain, none longer than `longest`.\n\n"
    "Stops behind `count` of them, or `size` bytes. Returns their frames in a list, and the position behind them. They may\n"
    "have the `reserved` bits; their text is not known then. `kinds` are the classes of Text and Binary frames. What it\n"
    "stops at is for somebody else to judge.");

static PyObject *
scan(PyObject *module, PyObject *const *args, Py_ssize_t arguments)
{
    if (arguments != 8) {
        PyErr_SetString(PyExc_TypeError, "scan takes eight arguments");
        return NULL;
    }
    Kinds kinds;
    char *data;
    Py_ssize_t end, numbers[6];
    if (PyBytes_AsStringAndSize(args[0], &data, &end) < 0) {
        return NULL;
    }
    for (int number = 0; number < 6; number++) {
        numbers[number] = PyLong_AsSsize_t(args[number + 1]);
        if (numbers[number] == -1 && PyErr_Occurred()) {
            return NULL;
        }
    }
    Py_ssize_t position = numbers[0], count = numbers[2], size = numbers[3];
    const Py_ssize_t longest = numbers[1], reserved = numbers[4] & 0x70;
    const int key_size = numbers[5] ? 4 : 0;
    if (position < 0 || position > end) {
        PyErr_SetString(PyExc_ValueError, "there is no such position");
        return NULL;
    }
    PyObject *run = PyList_New(0);
    if (run == NULL || kinds_of(module, args[7], &kinds) < 0) {
        Py_XDECREF(run);
        return NULL;
    }
    while (count > 0 && size > 0) {
        const unsigned char *head = (const unsigned char *)data + position;
        const Py_ssize_t left = end - position;
        Py_ssize_t head_size = 0;
        const Py_ssize_t length = length_of(head, left, (int)reserved, key_size, &head_size);
        if (length < 0 || length > longest || length > left - head_size) {
            break;
        }
        PyObject *frame;
        const int done = read_message(&kinds, head, head_size, key_size, length, &frame);
        if (done == 0) {
            break;
        }
        const int kept = done < 0 ? -1 : PyList_Append(run, frame);
        if (done > 0) {
            Py_DECREF(frame);
        }
        if (kept < 0) {
            Py_DECREF(kinds.owned);
            Py_DECREF(run);
            return NULL;
        }
        position += head_size + length;
        size -= length;
        count--;
    }
    Py_DECREF(kinds.owned);
    return Py_BuildValue("(Nn)", run, position);
}

/* RFC 6455 §5.2: the fewest bytes that state a length, beyond the one that every head has for it. */
static int
more_length_bytes(Py_ssize_t length)
{
    return length < 126 ? 0 : length < 0x10000 ? 2 : 8;
}

/* Returns where the payload begins. */
static char *
write_head(char *to, int first_byte, Py_ssize_t length)
{
    const int more = more_length_bytes(length);
    to[0] = (char)first_byte;
    to[1] = (char)(more == 0 ? length : more == 2 ? 126 : 127);
    for (int byte = 0; byte < more; byte++) {
        to[2 + byte] = (char)((uint64_t)length >> 8 * (more - 1 - byte));
    }
    return to + 2 + more;
}

/* What an item of `join` holds: a frame's payload, with its first byte; or, with none (-1), bytes as they are. */
typedef struct {
    PyObject *bytes;
    int first_byte;
} Joined;

static PyObject *
read_attribute(const State *state, const Kinds *kinds, PyObject *item, int attribute)
{
    PyObject *type = (PyObject *)Py_TYPE(item);
    if (kinds->owned != NULL && (type == kinds->text || type == kinds->binary)) {
        return state->get_slot(kinds->slots[attribute], item, type);
    }
    return PyObject_GetAttr(item, state->names[attribute]);
}

static int
read_item(const State *state, const Kinds *kinds, PyObject *item, Joined *joined)
{
    if (PyBytes_Check(item)) {
        joined->bytes = Py_NewRef(item);
        joined->first_byte = -1;
        return 0;
    }
    PyObject *number = read_attribute(state, kinds, item, FIRST_BYTE);
    if (number == NULL) {
        return -1;
    }
    const int first_byte = first_byte_of(number);
    Py_DECREF(number);
    if (first_byte < 0) {
        return -1;
    }
    PyObject *bytes = read_attribute(state, kinds, item, DATA);
    if (bytes != NULL && !PyBytes_Check(bytes)) {
        PyErr_SetString(PyExc_TypeError, "a payload is bytes");
        Py_CLEAR(bytes);
    }
    joined->bytes = bytes;
    joined->first_byte = first_byte;
    return bytes == NULL ? -1 : 0;
}

static PyObject *
write_items(const Joined *items, Py_ssize_t count)
{
    Py_ssize_t size = 0;
    for (Py_ssize_t at = 0; at < count; at++) {
        const Py_ssize_t length = PyBytes_Size(items[at].bytes);
        const int head = items[at].first_byte < 0 ? 0 : 2 + more_length_bytes(length);
        if (length > PY_SSIZE_T_MAX - head - size) {
            return PyErr_NoMemory();
        }
        size += head + length;
    }
    PyObject *all = PyBytes_FromStringAndSize(NULL, size);
    if (all == NULL) {
        return NULL;
    }
    char *to = PyBytes_AsString(all);
    for (Py_ssize_t at = 0; at < count; at++) {
        const Py_ssize_t length = PyBytes_Size(items[at].bytes);
        if (items[at].first_byte >= 0) {
            to = write_head(to, items[at].first_byte, length);
        }
        memcpy(to, PyBytes_AsString(items[at].bytes), (size_t)length);
        to += length;
    }
    return all;
}

PyDoc_STRVAR(join_doc, "join(items, /)\n--\n\n"
    "The bytes of a list of frames that are not masked, and of what is bytes already, in order.");

static PyObject *
join(PyObject *module, PyObject *list)
{
    if (!PyList_Check(list)) {
        PyErr_SetString(PyExc_TypeError, "join takes a list");
        return NULL;
    }
    const Py_ssize_t count = PyList_Size(list);
    Joined *items = PyMem_Malloc((size_t)(count ? count : 1) * sizeof *items);
    if (items == NULL) {
        return PyErr_NoMemory();
    }
    const State *state = PyModule_GetState(module);
    const Kinds kinds = state->kinds;
    Py_XINCREF(kinds.owned);
    Py_ssize_t read = 0;
    /* What an attribute is looked up by may be anybody's code, which may change the list. */
    while (read < count && read < PyList_Size(list)) {
        PyObject *item = Py_NewRef(PyList_GetItem(list, read));
        const int failed = read_item(state, &kinds, item, &items[read]);
        Py_DECREF(item);
        if (failed) {
            break;
        }
        read++;
    }
    Py_XDECREF(kinds.owned);
    PyObject *bytes = PyErr_Occurred() ? NULL : write_items(items, read);
    while (read > 0) {
        Py_DECREF(items[--read].bytes);
    }
    PyMem_Free(items);
    return bytes;
}

static PyMethodDef methods[] = {
    {"join", (PyCFunction)join, METH_O, join_doc},
    {"mask", (PyCFunction)(void (*)(void))mask, METH_FASTCALL, mask_doc},
    {"mask_frame", (PyCFunction)(void (*)(void))mask_frame, METH_FASTCALL, mask_frame_doc},
    {"message", (PyCFunction)(void (*)(void))message, METH_FASTCALL, message_doc},
    {"scan", (PyCFunction)(void (*)(void))scan, METH_FASTCALL, scan_doc},
    {"single", (PyCFunction)(void (*)(void))single, METH_FASTCALL, single_doc},
    {NULL, NULL, 0, NULL},
};

static int
fill_module(PyObject *module)
{
    State *state = PyModule_GetState(module);
    state->plain_new = PyType_GetSlot(&PyBaseObject_Type, Py_tp_new);
    state->get_slot = (descrgetfunc)PyType_GetSlot(&PyMemberDescr_Type, Py_tp_descr_get);
    for (int attribute = 0; attribute < ATTRIBUTES; attribute++) {
        state->names[attribute] = PyUnicode_InternFromString(attribute_names[attribute]);
        if (state->names[attribute] == NULL) {
            return -1;
        }
    }
    PyObject *filling = PyType_FromModuleAndSpec(module, &filling_spec, NULL);
    if (filling == NULL) {
        return -1;
    }
    const int done = PyModule_AddObjectRef(module, "Filling", filling);
    Py_DECREF(filling);
    return done;
}

static int
traverse_module(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    Py_VISIT(state->kinds.owned);
    return 0;
}

static int
clear_module(PyObject *module)
{
    State *state = PyModule_GetState(module);
    for (int attribute = 0; attribute < ATTRIBUTES; attribute++) {
        Py_CLEAR(state->names[attribute]);
    }
    PyObject *owned = state->kinds.owned;
    state->kinds = (Kinds){0};
    Py_XDECREF(owned);
    return 0;
}

static void
free_module(void *module)
{
    clear_module(module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)fill_module},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    "trioktor.protocol._native",
    "The native part of the protocol core.",
    sizeof(State),
    methods,
    slots,
    traverse_module,
    clear_module,
    free_module,
};

PyMODINIT_FUNC
PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
