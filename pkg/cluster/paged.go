package cluster

import (
	"context"
	"reflect"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// pageSize is how many objects one answer of the API server holds, as with kubectl.
const pageSize = 500

// Paged reads lists in pages, so that the API server never has to hold 10,000 objects in one answer. It is for a client
// that asks the API server itself: an informer's cache knows no pages.
func Paged(r client.Reader) client.Reader { return paged{r} }

type paged struct{ client.Reader }

func (p paged) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	items, err := itemsOf(list)
	if err != nil {
		return err
	}
	for next := ""; ; {
		// A list of its own for each page: decoding writes into the items that are there.
		page := reflect.New(reflect.TypeOf(list).Elem()).Interface().(client.ObjectList)
		of := &client.ListOptions{}
		of.ApplyOptions(options)
		of.Limit, of.Continue = pageSize, next
		if err := p.Reader.List(ctx, page, of); err != nil {
			return err
		}
		more, err := itemsOf(page)
		if err != nil {
			return err
		}
		items.Set(reflect.AppendSlice(items, more))
		if next = page.GetContinue(); next == "" {
			return nil
		}
	}
}

// itemsOf is the slice of a list's items.
func itemsOf(list client.ObjectList) (reflect.Value, error) {
	items, err := meta.GetItemsPtr(list)
	if err != nil {
		return reflect.Value{}, err
	}
	return reflect.ValueOf(items).Elem(), nil
}
