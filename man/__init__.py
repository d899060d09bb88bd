"""The manual: renderers for trees and tasks, and the pages."""
