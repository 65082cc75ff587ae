package natskv

import (
	"context"
	"iter"
	"slices"
	"strings"
	"time"
)

// filters returns subject filters, as they follow the bucket's own subject, one of
// which has the form of each key that begins with prefix. Others match too.
func filters(prefix string) []string {
	// After a separator a key's form has a dot, unless nothing follows.
	end := strings.LastIndexAny(prefix, ":/.") + 1
	if end == 0 {
		return []string{">"}
	}
	form := string(appendKey(nil, prefix[:end]))
	switch {
	case strings.HasPrefix(form, longKey): // then what begins with prefix is long, too
		return []string{longKey + ">"}
	case end == len(prefix):
		return []string{form, form + ".>", longKey + ">"}
	}
	return []string{form + ".>", longKey + ">"}
}

// list yields the keys that begin with prefix and have a message, be it an entry, the
// marker of a deletion or foreign: in pages, between which it holds nothing. A key that
// has one all the time comes. An error is last.
func (c *Cache) list(ctx context.Context, prefix string) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		for _, filter := range filters(prefix) {
			for subjects, err := range c.listSubjects(ctx, c.subject+filter) {
				var keys []string
				for _, subject := range subjects {
					key, err := decodeKey(strings.TrimPrefix(subject, c.subject))
					if err == nil && strings.HasPrefix(key, prefix) {
						keys = append(keys, key)
					}
				}
				if !yield(keys, err) || err != nil {
					return
				}
			}
		}
	}
}

// listSubjects yields the subjects that the filter matches, in pages of what the
// server lists at a time: 100,000 (JSMaxSubjectDetails).
func (c *Cache) listSubjects(ctx context.Context, filter string) iter.Seq2[[]string, error] {
	return func(yield func([]string, error) bool) {
		// A page is a range of the sorted list as it is at that moment. What is removed
		// between two pages moves the rest up: so each page has to begin with, or
		// before, the last subject of the one before.
		last, offset, back := "", 0, 1
		for {
			page, total, err := c.subjects(ctx, filter, max(offset-back, 0))
			if err != nil {
				yield(nil, err)
				return
			}
			if offset > back && (len(page) == 0 || page[0] > last) {
				back *= 8
				continue
			}
			offset, back = max(offset-back, 0)+len(page), 1
			at, found := slices.BinarySearch(page, last)
			if found {
				at++
			}
			if page = page[at:]; len(page) > 0 {
				last = page[len(page)-1]
				if !yield(page, nil) {
					return
				}
			}
			if offset >= total {
				return
			}
		}
	}
}

// subjects returns a page of the sorted subjects that the filter matches, and how
// many there are in all.
func (c *Cache) subjects(ctx context.Context, filter string, offset int) (page []string, total int, err error) {
	limit := time.Now().Add(c.opTimeout)
	b, err := c.checked(ctx, limit)
	if err != nil {
		return nil, 0, err
	}
	args := struct {
		Filter string `json:"subjects_filter"`
		Offset int    `json:"offset"`
	}{filter, offset}
	var info struct {
		Total int `json:"total"`
		State struct {
			Subjects map[string]uint64 `json:"subjects"`
		} `json:"state"`
	}
	if err := b.askAgain(ctx, limit, apiStreamInfo+c.stream.Name, args, &info); err != nil {
		return nil, 0, err
	}
	page = make([]string, 0, len(info.State.Subjects))
	for subject := range info.State.Subjects {
		page = append(page, subject)
	}
	slices.Sort(page)
	return page, info.Total, nil
}
