// Images without a container engine: one layer of static files, in the format of `docker save`.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"strings"
)

// layer is a tar of files that makes the folders they need on the way.
type layer struct {
	content bytes.Buffer
	tar     *tar.Writer
	folders map[string]bool
}

func newLayer() *layer {
	made := &layer{folders: map[string]bool{".": true, "/": true}}
	made.tar = tar.NewWriter(&made.content)
	return made
}

func (l *layer) folder(name string, mode int64) {
	if l.folders[name] {
		return
	}
	l.folder(path.Dir(name), 0o755)
	l.folders[name] = true
	check(l.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}))
}

func (l *layer) file(name string, mode int64, content []byte) {
	name = strings.TrimPrefix(name, "/")
	l.folder(path.Dir(name), 0o755)
	writeEntry(l.tar, name, mode, content)
}

func writeEntry(to *tar.Writer, name string, mode int64, content []byte) {
	check(to.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}))
	must(to.Write(content))
}

func makeImage(out, name, user, entrypoint string, files []string) {
	rootfs := newLayer()
	rootfs.folder("tmp", 0o1777)
	rootfs.file("etc/passwd", 0o644, []byte("root:x:0:0:root:/:/\nnobody:x:65534:65534:nobody:/:/\n"))
	for _, file := range files {
		dest, src, ok := strings.Cut(file, "=")
		if !ok {
			check(fmt.Errorf("want DEST=SRC, got %q", file))
		}
		rootfs.file(dest, int64(must(os.Stat(src)).Mode().Perm()), must(os.ReadFile(src)))
	}
	check(rootfs.tar.Close())

	sum := sha256.Sum256(rootfs.content.Bytes())
	config := must(json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"created":      "1970-01-01T00:00:00Z",
		"config":       map[string]any{"Entrypoint": []string{entrypoint}, "User": user, "WorkingDir": "/"},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}},
	}))
	manifest := must(json.Marshal([]any{map[string]any{
		"Config": "config.json", "RepoTags": []string{name}, "Layers": []string{"layer.tar"},
	}}))
	writeArchive(must(os.Create(out)), rootfs.content.Bytes(), config, manifest)
}

func writeArchive(file io.WriteCloser, rootfs, config, manifest []byte) {
	archive := tar.NewWriter(file)
	writeEntry(archive, "layer.tar", 0o644, rootfs)
	writeEntry(archive, "config.json", 0o644, config)
	writeEntry(archive, "manifest.json", 0o644, manifest)
	check(archive.Close())
	check(file.Close())
}
