# The three matrix products of a layer, over the n rows of a block. Below these sizes BLAS spends more on
# packing than the product costs (measured on 256 rows: 2 → 100 units 5 µs in loops, 11 µs in BLAS; equal at 8 → 8).
by_blas(k, m) = k >= 8 && m >= 8

"C[:, j] = c₀ + Σᵢ wᵢ A[:, i], or added to C[:, j] when not `first`."
@inline function add_columns!(C, j, A, i, w::Tuple{T}, first::Bool, c0::T, n) where {T}
    @inbounds @lanes r n C[r, j] = muladd(w[1], A[r, i], ifelse(first, c0, C[r, j]))
end
@inline function add_columns!(C, j, A, i, w::Tuple{T,T}, first::Bool, c0::T, n) where {T}
    @inbounds @lanes r n C[r, j] = muladd(w[2], A[r, i+1], muladd(w[1], A[r, i], ifelse(first, c0, C[r, j])))
end
@inline function add_columns!(C, j, A, i, w::Tuple{T,T,T,T}, first::Bool, c0::T, n) where {T}
    @inbounds @lanes r n C[r, j] = muladd(w[4], A[r, i+3], muladd(w[3], A[r, i+2],
        muladd(w[2], A[r, i+1], muladd(w[1], A[r, i], ifelse(first, c0, C[r, j])))))
end

"""
    combine!(C, m, A, k, θ, o, si, sj, oc, n)

C[r, j] = θ[oc + j] + Σᵢ A[r, i] θ[o + si(i - 1) + sj(j - 1)] for j in 1:m, i in 1:k; `oc < 0` is no constant.
"""
function combine!(C::Matrix{T}, m::Int, A::Matrix{T}, k::Int, θ, o::Int, si::Int, sj::Int, oc::Int, n::Int) where {T}
    if by_blas(k, m)
        @inbounds for j in 1:m
            c0 = oc < 0 ? zero(T) : θ[oc+j]
            @lanes r n C[r, j] = c0
        end
        gemm!('N', si == 1 ? 'N' : 'T', n, m, k, one(T), A, 1, size(A, 1), θ, o, max(si, sj), one(T), C, 1, size(C, 1))
        return C
    end
    @inbounds for j in 1:m
        c0 = oc < 0 ? zero(T) : θ[oc+j]
        p, i = o + sj * (j - 1), 1
        while i + 3 <= k
            add_columns!(C, j, A, i, (θ[p], θ[p+si], θ[p+2si], θ[p+3si]), i == 1, c0, n)
            i, p = i + 4, p + 4si
        end
        if i + 1 <= k
            add_columns!(C, j, A, i, (θ[p], θ[p+si]), i == 1, c0, n)
            i, p = i + 2, p + 2si
        end
        i <= k && add_columns!(C, j, A, i, (θ[p],), i == 1, c0, n)
    end
    return C
end

"H = A Wᵀ + b"
linear!(H, A, θ, l::Layer, n) =
    combine!(H, l.width, A, l.fan_in, θ, l.offset + 1, 1, l.fan_in, l.bias ? bias_offset(l) : -1, n)

"E = Δ W, the derivative with respect to the layer's input"
pullback!(E, Δ, θ, l::Layer, n) = combine!(E, l.fan_in, Δ, l.width, θ, l.offset + 1, l.fan_in, 1, -1, n)

"C = D ∘ E in columns 1:k"
function hadamard!(C, D, E, n::Int, k::Int)
    @inbounds for j in 1:k
        @lanes r n C[r, j] = D[r, j] * E[r, j]
    end
    return C
end

function column_dots(Δ::Matrix{T}, j, A, i, n) where {T}
    s = zero(T)
    @inbounds @simd for r in 1:n
        s = muladd(Δ[r, j], A[r, i], s)
    end
    return s
end
function column_dots4(Δ::Matrix{T}, j, A, i, n) where {T}
    s1 = s2 = s3 = s4 = zero(T)
    @inbounds @simd for r in 1:n
        d = Δ[r, j]
        s1 = muladd(d, A[r, i], s1)
        s2 = muladd(d, A[r, i+1], s2)
        s3 = muladd(d, A[r, i+2], s3)
        s4 = muladd(d, A[r, i+3], s4)
    end
    return s1, s2, s3, s4
end
function column_sum(Δ::Matrix{T}, j, n) where {T}
    s = zero(T)
    @inbounds @simd for r in 1:n
        s += Δ[r, j]
    end
    return s
end

"g += Δᵀ A and the column sums of Δ for the bias, at the layer's place in g"
function accumulate!(g, Δ::Matrix{T}, A::Matrix{T}, l::Layer, n::Int) where {T}
    accumulate_weights!(g, Δ, A, l, n)
    if l.bias
        @inbounds for j in 1:l.width
            g[bias_offset(l)+j] += column_sum(Δ, j, n)
        end
    end
    return g
end

function accumulate_weights!(g, Δ::Matrix{T}, A::Matrix{T}, l::Layer, n::Int) where {T}
    k = l.fan_in
    if by_blas(k, l.width)
        gemm!('T', 'N', k, l.width, n, one(T), A, 1, size(A, 1), Δ, 1, size(Δ, 1), one(T), g, l.offset + 1, k)
        return g
    end
    @inbounds for j in 1:l.width
        o, i = l.offset + (j - 1) * k, 1
        while i + 3 <= k
            s1, s2, s3, s4 = column_dots4(Δ, j, A, i, n)
            g[o+i] += s1
            g[o+i+1] += s2
            g[o+i+2] += s3
            g[o+i+3] += s4
            i += 4
        end
        while i <= k
            g[o+i] += column_dots(Δ, j, A, i, n)
            i += 1
        end
    end
    return g
end
