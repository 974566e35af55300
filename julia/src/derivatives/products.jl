# The three matrix products of a layer, over the n rows of a block.

"""
    Weights(θ, first, down, across, bias)

A matrix of weights in a vector of parameters: W[i, j] = θ[first + down (i - 1) + across (j - 1)], and constants
θ[bias + j] for its columns, or none where `bias` is negative.
"""
struct Weights{V<:AbstractVector}
    θ::V
    first::Int
    down::Int
    across::Int
    bias::Int
end
constant(W::Weights, j::Int) = W.bias < 0 ? zero(eltype(W.θ)) : @inbounds W.θ[W.bias+j]

"""
    combine_tile!(Val(K), Val(R), C, j, A, k, W, r)

C[:, j + q] = c_q + Σᵢ A[:, i] W[i, j + q] for q in 0:K-1, with the constants c_q of `W`, in R registers of rows from
`r` on: the sums stay in registers, these rows of `A` in the first-level cache.
"""
@inline @generated function combine_tile!(::Val{K}, ::Val{R}, C::Matrix{T}, j::Int, A::Matrix{T}, k::Int, W::Weights,
                                             r0::Int) where {K,R,T}
    V, L = register(T), width(register(T))
    s = [Symbol(:s, x, :_, q) for x in 1:R, q in 1:K]
    return quote
        θ, si, sj, lc, la = W.θ, W.down, W.across, size(C, 1), size(A, 1)
        c0, a, w = (j - 1) * lc + r0, r0, W.first + sj * (j - 1)
        $((:($(s[x, q]) = $V(constant(W, j + $(q - 1)))) for x in 1:R, q in 1:K)...)
        GC.@preserve A C for i in 1:k
            $((:($(Symbol(:a, x)) = load($V, A, a + $((x - 1) * L))) for x in 1:R)...)
            $((quote
                b = $V(@inbounds θ[w+$(q - 1)*sj])
                $((:($(s[x, q]) = muladd($(Symbol(:a, x)), b, $(s[x, q]))) for x in 1:R)...)
            end for q in 1:K)...)
            a += la
            w += si
        end
        GC.@preserve C begin
            $((:(store!(C, c0 + $(q - 1) * lc + $((x - 1) * L), $(s[x, q]))) for x in 1:R, q in 1:K)...)
        end
        return nothing
    end
end

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

"C[:, j] = c + Σᵢ A[:, i] W[i, j] for i in 1:k, with the constant c of `W`"
function combine_column!(C::Matrix, j::Int, A::Matrix, k::Int, W::Weights, n::Int)
    θ, s, p, c0, i = W.θ, W.down, W.first + W.across * (j - 1), constant(W, j), 1
    @inbounds while i + 3 <= k
        add_columns!(C, j, A, i, (θ[p], θ[p+s], θ[p+2s], θ[p+3s]), i == 1, c0, n)
        i, p = i + 4, p + 4s
    end
    @inbounds if i + 1 <= k
        add_columns!(C, j, A, i, (θ[p], θ[p+s]), i == 1, c0, n)
        i, p = i + 2, p + 2s
    end
    @inbounds i <= k && add_columns!(C, j, A, i, (θ[p],), i == 1, c0, n)
    return nothing
end

"""
Whether tiles compute a product of n × k and k × m. For few columns on either side the column at a time is faster
(measured in Float64 on 256 rows: 100 → 1 units 2.5 against 5.1 µs, 2 → 50 units 3.3 against 4.0, 8 → 8 units 2.1
against 1.1; in Float32 and on 16 rows tiles always win).
"""
by_tile(::Type{T}, k, m, n) where {T<:BlasReal} = T === Float32 || n < 64 || (k >= 4 && m >= 4)
by_tile(::Type, k, m, n) = false

"Where so much is summed that BLAS gains by packing (784 → 100 units on 256 rows: 1.0 against 1.6 ms)."
by_blas(k, m) = k >= 256 && m >= 16
by_blas(l::Layer) = by_blas(l.fan_in, l.width)

"""
    combine!(C, m, A, k, W, n)

C[r, j] = c_j + Σᵢ A[r, i] W[i, j] for j in 1:m, i in 1:k and the first `n` rows, with the constants c of `W`.
"""
function combine!(C::Matrix{T}, m::Int, A::Matrix{T}, k::Int, W::Weights, n::Int) where {T}
    if by_blas(k, m)
        @inbounds for j in 1:m
            c0 = constant(W, j)
            @lanes r n C[r, j] = c0
        end
        weights = Panel(W.θ, W.first, max(W.down, W.across))
        gemm!('N', W.down == 1 ? 'N' : 'T', n, m, k, Panel(A), weights, Panel(C))
    elseif by_tile(T, k, m, n)
        combine_tiles!(C, m, A, k, W, n)
    else
        for j in 1:m
            combine_column!(C, j, A, k, W, n)
        end
    end
    return C
end

function combine_tiles!(C::Matrix{T}, m::Int, A::Matrix{T}, k::Int, W::Weights, n::Int) where {T<:BlasReal}
    tall = Val(min(2, div(LANES, width(register(T)))))
    for r in 1:value(tall)*width(register(T)):n
        j = 1
        while REGISTER > 32 && j + 7 <= m
            combine_tile!(Val(8), tall, C, j, A, k, W, r)
            j += 8
        end
        while j + 3 <= m
            combine_tile!(Val(4), tall, C, j, A, k, W, r)
            j += 4
        end
        while j <= m
            combine_tile!(Val(1), tall, C, j, A, k, W, r)
            j += 1
        end
    end
    return C
end
value(::Val{N}) where {N} = N
combine_tiles!(C::Matrix, m, A, k, W, n) = C

"The weights of a layer as they multiply its input, and, without constants, as they multiply what comes back."
forth(θ, l::Layer) = Weights(θ, l.offset + 1, 1, l.fan_in, l.bias ? bias_offset(l) : -1)
forth_linear(θ, l::Layer) = Weights(θ, l.offset + 1, 1, l.fan_in, -1)
back(θ, l::Layer) = Weights(θ, l.offset + 1, l.fan_in, 1, -1)

"H = A Wᵀ + b, or one column of it"
linear!(H, A, θ, l::Layer, n) = combine!(H, l.width, A, l.fan_in, forth(θ, l), n)
linear_column!(H, j, A, θ, l::Layer, n) = combine_column!(H, j, A, l.fan_in, forth(θ, l), n)

"E = Δ W, the derivative with respect to the layer's input"
pullback!(E, Δ, θ, l::Layer, n) = combine!(E, l.fan_in, Δ, l.width, back(θ, l), n)

"C = D ∘ E in columns 1:k"
function hadamard!(C, D, E, n::Int, k::Int)
    @inbounds for j in 1:k
        @lanes r n C[r, j] = D[r, j] * E[r, j]
    end
    return C
end

"""
    in_chunks(T, sums, body) -> Expr

The loop over the rows `r` of 1:n with `sums` that begin with zero; `body(V)` is what it does with vectors of type V.
"""
function in_chunks(::Type{T}, sums, body) where {T}
    W, V, all = wide(T), lanes(T), Expr(:tuple, sums...)
    rows(first, V, last) = :(for r in $first:$(width(V)):$last
        $(body(V))
    end)
    begins = :($all = $(Expr(:tuple, (:(zero($V)) for _ in sums)...)))
    W == V && return Expr(:block, begins, rows(1, V, :n))
    # A few samples need no long vectors, and no sums of their halves: a gradient of 10 units takes 0.45 and 0.78 µs on
    # 10 and 40 samples, and 0.50 and 0.88 with them.
    return quote
        $begins
        if n < $(2 * width(W))
            $(rows(1, V, :n))
        else
            most = n - n % $(width(W))
            $all = let $((:($x = zero($W)) for x in sums)...)
                $(rows(1, W, :most))
                $(Expr(:tuple, (:(fold($x)) for x in sums)...))
            end
            $(rows(:(most + 1), V, :n))
        end
    end
end

"""
    column_dots(Val(K), Δ, j, A, i, n) -> (Δ[:, j]ᵀ A[:, i], …, Δ[:, j]ᵀ A[:, i + K - 1])
"""
@inline @generated function column_dots(::Val{K}, Δ::Matrix{T}, j::Int, A::Matrix{T}, i::Int, n::Int) where {K,T}
    s = [Symbol(:s, k) for k in 1:K]
    return quote
        m = size(A, 1)
        d0, a0 = (j - 1) * size(Δ, 1), (i - 1) * m
        GC.@preserve Δ A begin
            $(in_chunks(T, s, V -> quote
                d = load($V, Δ, d0 + r)
                $((:($x = muladd(d, load($V, A, a0 + $(k - 1) * m + r), $x)) for (k, x) in enumerate(s))...)
            end))
        end
        return $(Expr(:tuple, (:(sum($x)) for x in s)...))
    end
end
"""
    backpropagate!(Val(K), Δ, j, D, E, c, w, A, n) -> (Σ Δ[:, j], Δ[:, j]ᵀ A[:, 1], …, Δ[:, j]ᵀ A[:, K])

Δ[:, j] = w D[:, j] ∘ E[:, c] and its products with the columns of `A`, in one pass.
"""
@inline @generated function backpropagate!(::Val{K}, Δ::Matrix{T}, j::Int, D::Matrix{T}, E::Matrix{T}, c::Int, w::T,
                                           A::Matrix{T}, n::Int) where {K,T}
    s = [Symbol(:s, k) for k in 1:K]
    return quote
        m = size(A, 1)
        d0, e0 = (j - 1) * size(Δ, 1), (c - 1) * size(E, 1)
        GC.@preserve Δ D E A begin
            $(in_chunks(T, [:total; s], V -> quote
                d = load($V, E, e0 + r) * w * load($V, D, d0 + r)
                store!(Δ, d0 + r, d)
                total += d
                $((:($x = muladd(d, load($V, A, $(k - 1) * m + r), $x)) for (k, x) in enumerate(s))...)
            end))
        end
        return $(Expr(:tuple, :(sum(total)), (:(sum($x)) for x in s)...))
    end
end

column_dot(Δ, j, A, i, n) = column_dots(Val(1), Δ, j, A, i, n)[1]

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
    l.bias && @inbounds for j in 1:l.width
        g[bias_offset(l)+j] += column_sum(Δ, j, n)
    end
    return g
end
"Whether the weights' gradient is one product, and not a loop over units"
in_one_product(l::Layer) = l.fan_in >= 4 && l.width > 1

function accumulate_weights!(g, Δ::Matrix{T}, A::Matrix{T}, l::Layer, n::Int) where {T}
    if in_one_product(l)
        gram!(Panel(g, l.offset + 1, l.fan_in), l.fan_in, l.width, Panel(A), Panel(Δ), n)
        return g
    end
    for j in 1:l.width
        accumulate_weights!(g, Δ, j, A, l, 1, n)
    end
    return g
end
"What column `j` of Δ adds for the inputs from `i` on"
function accumulate_weights!(g, Δ::Matrix{T}, j::Int, A::Matrix{T}, l::Layer, i::Int, n::Int) where {T}
    o = l.offset + (j - 1) * l.fan_in
    @inbounds while i + 2 <= l.fan_in          # three sums of four vectors each fill the registers
        s = column_dots(Val(3), Δ, j, A, i, n)
        g[o+i] += s[1]
        g[o+i+1] += s[2]
        g[o+i+2] += s[3]
        i += 3
    end
    @inbounds while i <= l.fan_in
        g[o+i] += column_dot(Δ, j, A, i, n)
        i += 1
    end
    return nothing
end
